"""``python -m benchmarks.gpu``: one run on a machine with a GPU that proves the contract, and fills the GPU's column.

It needs torch and transformers, and the packages of ``benchmarks.wheels``. After each part it writes all results so far
into one JSON file, so that a run that is cut off keeps them. A part that fails, or for which no time is left, is named
there, and the next one runs. The last part, a training under the profiler, has time of its own.
"""

import argparse
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import loss, machine, memory, steps, trainers
from benchmarks.aims import Measured
from benchmarks.gpu_contract import contract
from benchmarks.gpu_profile import profiled_training
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import Ratio
from potstill.files.atomic import write_json

FOR_PROFILE = 45
"""Seconds that are kept for the training under the profiler."""
LEAST = 5
"""Seconds that a part must have to begin."""

SECTIONS: Mapping[str, Callable[[Settings], tuple[list[Table], list[Measured]]]] = {
    "loss": loss.section,
    "steps": steps.section,
    # A shape each, so that a run that is cut off keeps the first.
    "trainers, V = 32k": lambda settings: trainers.section(settings, trainers.shapes(settings)[:1]),
    "trainers, V = 128k": lambda settings: trainers.section(settings, trainers.shapes(settings)[1:]),
    "memory": memory.section,
}


class OutOfTime(BaseException):
    """A part has used up its time. No ``except Exception`` of a section takes it for a failure of a peer."""


@dataclass
class Run:
    """The results so far, and the time that is left.

    Args:
        out: the file of the results.
        seconds: the time for all parts.
    """

    out: Path
    seconds: float
    results: dict[str, Any] = field(default_factory=dict)
    _start: float = field(default_factory=time.monotonic)

    def left(self, kept: float = 0) -> float:
        """Seconds that are left, without those that are kept for later parts."""
        return self.seconds - kept - (time.monotonic() - self._start)

    def part(self, name: str, work: Callable[[], Any], kept: float = 0) -> None:
        """Run a part within the time that is left, and write its result, or why it has none."""
        left, start = self.left(kept), time.monotonic()
        if left < LEAST:
            self._write(name, {"left_out": "no time was left"})
            return
        say(f"{name} ({left:.0f} s left)")
        try:
            with _at_most(left):
                result = {"result": work()}
        except OutOfTime:
            result = {"left_out": f"not finished after {left:.0f} s"}
        except Exception as error:  # noqa: BLE001 - whatever fails on a new machine, the next parts must run
            result = {"failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        self._write(name, result | {"seconds": round(time.monotonic() - start, 1)})

    def _write(self, name: str, result: dict[str, Any]) -> None:
        self.results[name] = result
        write_json(self.out, self.results)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise :class:`OutOfTime` in this block when the time is over."""

    def stop(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all parts. The exit code is 1 if the contract is broken or could not be shown."""
    options = _parser().parse_args(arguments)
    device = machine.device()
    if device.type != "cuda" and not options.small:
        sys.exit("this machine has no GPU; rehearse with --small, or use `make bench`")
    torch._dynamo.config.recompile_limit = 64
    options.out.parent.mkdir(parents=True, exist_ok=True)
    run, settings = Run(options.out, options.minutes * 60), Settings(device, options.small, 2 if options.small else 3)
    if options.only and options.out.is_file():
        run.results = json.loads(options.out.read_text(encoding="utf-8"))
    run.part("machine", lambda: {"processor": machine.processor(), "versions": machine.versions()})
    for name, work in _parts(device, settings, run, options.only).items():
        run.part(name, work, kept=0 if name == "profile" else FOR_PROFILE)
    print(json.dumps({name: _short(result) for name, result in run.results.items()}, indent=1))
    broken = run.results["contract"].get("result", {"": {"holds": False}}) if "contract" in run.results else {}
    sys.exit(0 if all(one["holds"] for one in broken.values()) else 1)


def _parts(device: torch.device, settings: Settings, run: Run, only: str | None) -> dict[str, Callable[[], Any]]:
    """The parts to run, in their order."""
    parts: dict[str, Callable[[], Any]] = {"contract": lambda: contract(device, settings.quick)}
    for name, section in SECTIONS.items():
        parts[f"section {name}"] = lambda section=section: _figures(*section(settings))
    parts["profile"] = lambda: profiled_training(device, settings.quick, min(40.0, run.left() - LEAST))
    wanted = list(parts) if only is None else only.split(";")
    if unknown := [name for name in wanted if name not in parts]:
        sys.exit(f"--only: there is no part {unknown[0]!r}; the parts are {', '.join(parts)}")
    return {name: parts[name] for name in wanted}


def _figures(tables: Sequence[Table], measured: Sequence[Measured]) -> dict[str, Any]:
    """A section's tables, and its figures for the aims."""
    figures = [
        {"aim": one.key, "where": one.where, "median": one.median}
        | ({"best": one.value.best} if isinstance(one.value, Ratio) else {})
        for one in measured
    ]
    return {"tables": [table.markdown() for table in tables], "figures": figures}


def _short(result: Mapping[str, Any]) -> str:
    return "done" if "result" in result else str(result.get("failed") or result["left_out"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/gpu.json"), help="the file of the results")
    parser.add_argument("--minutes", type=float, default=8, help="the time for all parts (default: 8)")
    parser.add_argument(
        "--only", metavar="PARTS", help="some of the parts, with `;` between them; the other results in --out stay"
    )
    parser.add_argument("--small", action="store_true", help="toy sizes: a rehearsal, on a CPU too")
    return parser


if __name__ == "__main__":
    main()
