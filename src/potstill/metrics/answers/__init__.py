"""Answers: the final number in a response, and what people decide about it."""
