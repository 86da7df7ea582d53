"""Files: written whole or not at all, append-only logs, and files inside installed packages."""
