"""Files: atomic writes, append-only logs, data sets, and files inside installed packages."""
