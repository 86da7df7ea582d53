"""Benchmarks: what the losses and the store cost, as ratios of things measured side by side in one run."""
