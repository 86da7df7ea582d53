"""Evaluation: one file for each kind of measurement; `stages/evaluate.py` puts together what they find."""
