"""Refusals: what a call returns, or the sentence with which it refuses bad input. Every other error is a failure."""

from collections.abc import Callable
from typing import Any

from potstill.errors import UserError


class Refused(str):
    """The message of a UserError."""

    __slots__ = ()

    @property
    def is_one_sentence(self) -> bool:
        """Whether a user can read it: one line, without a traceback."""
        return bool(self.strip()) and "\n" not in self and "Traceback" not in self


def unless_refused(call: Callable[[], Any]) -> Any:
    """What a call returns, or its refusal."""
    try:
        return call()
    except UserError as error:
        return Refused(error)
