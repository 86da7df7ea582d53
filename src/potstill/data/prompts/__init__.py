"""Prompts: what teacher and student are asked, as tokens, and the answers of both aligned."""
