"""TFRecord files as they lie: their format, their index, their bytes; what `tfdist data` says of them."""
