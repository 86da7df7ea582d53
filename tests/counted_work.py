"""Counted work: what a function does with arrays, in elements and in lines of Python. No clock is read."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np


class Counted(np.ndarray):
    """An array whose size is counted, as is that of each array that is made of it."""

    elements = 0

    def __array_finalize__(self, made_of: Any) -> None:
        Counted.elements += self.size


class CountedNumpy:
    """NumPy for one module: what its functions return is counted."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        # The results of a ufunc are counted arrays, because its arguments are.
        if isinstance(found, type | np.ufunc) or not callable(found):
            return found
        return lambda *given, **named: counted(found(*given, **named))


def counted(found: Any) -> Any:
    """Arrays, alone or in a tuple, as counted ones."""
    if isinstance(found, np.ndarray):
        return found.view(Counted)
    return tuple(map(counted, found)) if type(found) is tuple else found


def work(run: Callable[[], object]) -> int:
    """The elements of all arrays that are made of counted ones, and the lines of Python that are run."""
    lines, before = 0, sys.gettrace()

    def trace(frame: Any, event: str, given: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    Counted.elements = 0
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return Counted.elements + lines
