"""Models: what there is to know of a causal language model, its folder, its head and its forward."""
