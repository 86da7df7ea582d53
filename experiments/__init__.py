"""Experiments: each is a command that runs it and writes its page under docs/experiments/."""

import os
from pathlib import Path

# Beside a checkout; a user names a folder of his own.
os.environ.setdefault("POTSTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
