"""Continuations: beginnings of text that models complete, judged by keyword and similarity."""
