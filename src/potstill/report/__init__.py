"""Report: one page that shows a run, from what was measured."""
