"""Sampling: the amounts of a corpus that is on this machine, from a part of it that is tokenized."""
