"""Prompts: the prompts of teacher and student as tokens, with the same answer tokens behind both."""
