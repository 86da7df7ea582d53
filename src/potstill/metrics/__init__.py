"""Metrics: how a model is scored, and the intervals of scores; no run folder, no recipe's stage."""
