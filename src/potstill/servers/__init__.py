"""Servers: clients of the programs that run a teacher on another machine."""
