"""Losses: the divergences, their gradients, and the chunked path that every training takes."""
