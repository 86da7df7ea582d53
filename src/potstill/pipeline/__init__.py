"""Pipeline: the table of stages, the run folder, and the runner that does what is not done."""
