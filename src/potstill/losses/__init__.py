"""Losses: the divergences, the one chunked path that all of them take, and what it needs to know of a model."""
