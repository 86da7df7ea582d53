"""Evaluation: one file for each kind of measurement. `stages/evaluate.py` collects the results."""
