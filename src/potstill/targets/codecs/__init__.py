"""Codecs: what is kept of a teacher's distribution, and its bytes."""
