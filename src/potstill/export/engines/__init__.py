"""Engines: the programs that run an exported file, each behind one interface."""
