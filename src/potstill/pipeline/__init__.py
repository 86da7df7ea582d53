"""Pipeline: the table of stages, the run folder, and the runner of the steps that are not done."""
