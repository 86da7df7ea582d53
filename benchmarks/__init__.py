"""Benchmarks: the cost of the losses and the store, as ratios that are measured side by side in one run."""
