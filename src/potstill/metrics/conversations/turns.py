"""Turns: the groups of the assistant's turns, and the metrics that are told for each of them.

The module imports nothing heavy, because `potstill compare` reads it.
"""

TURNS = ("turn 1", "turn 2", "turn 3", "turn 4+")
"""The groups. The last one has all turns from the fourth on."""

BY_TURN = ("loss", "kl_to_teacher")
"""The metrics, such as `loss/turn 1`."""
