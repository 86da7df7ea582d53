"""Continuations: beginnings of text that models complete, and the scores of what they write."""
