"""Planning: what a run needs, what it costs, and what is worth running, before anything of it is spent."""
