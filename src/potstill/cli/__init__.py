"""Command line: one verb a stage, and what looks at runs."""
