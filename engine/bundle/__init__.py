"""Engine bundles: compiled models in a folder, opened and run.  `export` makes them."""
