"""Minimal pairs: which of two sentences is more probable to a model, as in BLiMP."""
