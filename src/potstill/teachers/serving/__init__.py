"""Serving: `potstill serve` gives a teacher's hidden states and its head to trainings on other machines."""
