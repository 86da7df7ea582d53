"""Command line: one verb for each stage, and verbs that inspect runs and recipes."""
