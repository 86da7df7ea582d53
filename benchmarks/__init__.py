"""Benchmarks: the cost of the losses and the store, as ratios that are measured side by side in one run."""

from potstill.cli.native_libraries import set_native_libraries

# As in every command of potstill, for peers too, and before a section imports torch.
set_native_libraries()
