"""Studies: many runs of one scenario with something changed, and what they say side by side."""
