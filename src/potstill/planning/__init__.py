"""Planning: what a run needs and costs, before anything of it is spent."""
