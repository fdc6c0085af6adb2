"""Reports about finished runs: charts, a page, pictures and a trace, from the files of a run alone."""
