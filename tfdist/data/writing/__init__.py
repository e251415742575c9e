"""From arrays, data sets and tables to files."""
