"""What a run hands out: tables, summary, files and what the console shows. It only reads."""
