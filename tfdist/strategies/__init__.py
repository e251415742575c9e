"""What the user picks: one file a strategy. Importing this room shims Keras, inertly (see tfdist/_compat)."""
