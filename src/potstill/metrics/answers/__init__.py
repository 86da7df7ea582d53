"""Answers: the final number in a response, and the decisions of people about it."""
