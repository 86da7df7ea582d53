"""lm-eval: tasks of lm-evaluation-harness, their items and their figures."""
