"""From files to batches: which records, in which order, how, and where reading stands."""
