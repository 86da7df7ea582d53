"""DeviceReads: the places in a program that would make the host wait for a GPU, counted on a CPU.

Three kinds of calls wait for all work that is queued on the device: those that read a number from it, those whose
result has a shape that depends on numbers on it, and a copy of host data that is not pinned. A CPU does not wait, so
each call is counted where it is made.
"""

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten
_READS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.equal.default,
    aten.bincount.default,
}
_PYTHON_READS = {Tensor.tolist, Tensor.numpy, Tensor.cpu, torch.tensor, torch.as_tensor, Tensor.new_tensor}


class DeviceReads(TorchDispatchMode):
    """Counts, while it is active, the calls that would wait for a GPU; each with the line of code that made it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._of_python = _PythonReads(self.lines)

    def __enter__(self) -> "DeviceReads":
        self._of_python.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._of_python.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = function in (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default) and any(
            at is not None and at.dtype == torch.bool for at in args[1]
        )
        if function in _READS or by_mask:
            self.lines.append(_line(str(function)))
        return function(*args, **(kwargs or {}))


class _PythonReads(TorchFunctionMode):
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What is a tensor on the device already is neither copied nor read.
        if function in _PYTHON_READS and not (function is torch.as_tensor and isinstance(args[0], Tensor)):
            self._lines.append(_line(function.__name__))
        return function(*args, **(kwargs or {}))


def _line(what: str) -> str:
    """The innermost line of our own or of transformers' code that led here."""
    for frame in reversed(traceback.extract_stack()):
        if "/torch/" not in frame.filename and frame.filename != __file__:
            return f"{what}: {frame.filename.split('site-packages/')[-1]}:{frame.lineno}: {frame.line}"
    return what


def on_the_host(collate: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
    """A collator that is not counted: batches are made on the CPU, whatever the device."""

    def collated(samples: Sequence[Any]) -> Any:
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            return collate(samples)

    return collated
