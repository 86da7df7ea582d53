"""Metrics of conversations: the loss by turn, and the answers that models write to the same prompts."""
