"""Planning: what a run will need, and what is worth running, before it is run."""
