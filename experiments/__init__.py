"""Experiments: each is a command that runs it and writes its page under docs/experiments/."""
