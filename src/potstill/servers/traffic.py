"""Traffic: what a server was asked and answered, also in earlier attempts at a step that were killed."""

import time
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from potstill.errors import UserError
from potstill.files.atomic import read_json, write_json

SECONDS_BETWEEN_SAVES = 2.0


@dataclass(frozen=True)
class Traffic:
    """What was asked and answered so far."""

    requests: int = 0
    """Requests that were answered."""
    repeated: int = 0
    """Requests that had to be sent again."""
    bytes_received: int = 0
    tokens_read: int = 0
    """Tokens that the server's model read."""
    tokens_written: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))


def kept_traffic(file: Path) -> Traffic | None:
    """The traffic that earlier attempts kept in a file; None if they kept none, or the file is damaged."""
    # A damaged file loses counts, and no targets.
    with suppress(UserError, TypeError):
        found = read_json(file)
        return None if found is None else Traffic(**found)
    return None


class TrafficFile:
    """Keeps the traffic of all attempts at a step: a kill loses that of the last seconds.

    Args:
        file: belongs to the step; what it holds is of earlier attempts.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._saved = file, 0.0
        self._earlier = kept_traffic(file) or Traffic()

    def total(self, now: Traffic) -> Traffic:
        """The traffic of earlier attempts and of this one."""
        return self._earlier + now

    def note(self, now: Traffic) -> None:
        """Save the traffic, unless that was done a moment ago."""
        if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
            self.save(now)

    def save(self, now: Traffic) -> None:
        """Save the traffic."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._file, asdict(self.total(now)))
        self._saved = time.monotonic()
