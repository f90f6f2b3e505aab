"""The report of a benchmark: one HTML file with its drawings inside, that loads nothing and runs nothing."""
