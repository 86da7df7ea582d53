"""Rehearsal: the whole pipeline of a recipe, with small models and short texts, without a network."""
