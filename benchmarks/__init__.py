"""What is measured: `tfdist bench` lists it. harness/ runs it, suite/ says what, tasks/ are processes that do it."""
