"""Export: a student leaves the run folder: its files, its card, its upload."""
