"""Models: the head, the forward, the size, the quantisation and the folder of a causal language model."""
