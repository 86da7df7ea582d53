"""``python -m benchmarks.gpu``: one run on a machine with a GPU that proves the contract, and fills the GPU's column.

It needs torch and transformers, and the packages of ``benchmarks.wheels``. It writes all results so far into one JSON
file as they come, so that a run that is cut off keeps them. A part that fails, or for which no time is left, is named
there, and the next one runs. The last part, a training under the profiler, has time of its own.
"""

import argparse
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import evaluation, loss, machine, memory, number_format, steps, trainers
from benchmarks.aims import Measured
from benchmarks.gpu_contract import compiled_contract, contract
from benchmarks.gpu_profile import profiled_training
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import Ratio
from potstill.files.atomic import write_json

FOR_PROFILE = 90
"""Seconds that are kept for the training under the profiler: a minute of it, its start and its end."""
CONTRACT = ("contract", "contract, compiled")
"""The parts that must hold."""
LEAST = 5
"""Seconds that a part must have to begin."""
TRAINER_ROUNDS = 2
"""Rounds of the trainers: each builds more than a dozen of them."""

Found = tuple[list[Table], list[Measured]]
Section = Callable[[Settings], Iterable[Found]]


def whole(section: Callable[[Settings], Found]) -> Section:
    """A section that tells what it found at its end."""
    return lambda settings: iter([section(settings)])


def _trainers(at: slice) -> Section:
    """The trainers on some of the shapes; it tells what it found after each training."""
    return lambda settings: trainers.so_far(replace(settings, rounds=TRAINER_ROUNDS), trainers.shapes(settings)[at])


SECTIONS: Mapping[str, Section] = {
    "memory": whole(memory.section),
    "format": whole(number_format.section),
    "evaluation": whole(evaluation.section),
    "trainers, V = 32k": _trainers(slice(0, 1)),
    "loss": whole(loss.section),
    "steps": whole(steps.section),
    "trainers, V = 128k": _trainers(slice(1, None)),
}
"""In the order of their parts; those of the contract stand before and after the first."""
MOST = {"section trainers, V = 32k": 80.0}
"""Seconds that a part has at most, so that the parts after it have theirs."""


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

    def part(self, name: str, work: Callable[[], Iterable[Any]], kept: float = 0) -> None:
        """Run a part within its time, and write each result of it in place of the one before; or why it has none."""
        left, start = min(self.left(kept), MOST.get(name, self.seconds)), time.monotonic()
        if left < LEAST:
            self._write(name, {"left_out": "no time was left"})
            return
        say(f"{name} ({left:.0f} s left)")
        so_far: dict[str, Any] = {}
        try:
            with _at_most(left):
                for result in work():
                    so_far = {"result": result}
                    self._write(name, so_far | {"cut_off": "not finished"})
        except OutOfTime:
            so_far |= {"cut_off" if so_far else "left_out": f"not finished after {left:.0f} s"}
        except Exception as error:  # noqa: BLE001 - whatever fails on a new machine, the next parts must run
            so_far |= {"failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        self._write(name, so_far | {"seconds": round(time.monotonic() - start, 1)})

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
    run.part("machine", lambda: [{"processor": machine.processor(), "versions": machine.versions()}])
    for name, work in _parts(device, settings, run, options.only).items():
        run.part(name, work, kept=0 if name == "profile" else FOR_PROFILE)
    print(json.dumps({name: _short(result) for name, result in run.results.items()}, indent=1))
    sys.exit(0 if _holds([one for name, one in run.results.items() if name in CONTRACT]) else 1)


def _holds(parts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each of these parts of the contract was shown, and all laws of it hold."""
    shown = all(part.keys() >= {"result"} and part.keys().isdisjoint({"cut_off", "failed"}) for part in parts)
    return shown and all(law["holds"] for part in parts for law in part["result"].values())


def _parts(
    device: torch.device, settings: Settings, run: Run, only: str | None
) -> dict[str, Callable[[], Iterable[Any]]]:
    """The parts to run, in their order."""
    of_sections: dict[str, Callable[[], Iterable[Any]]] = {
        f"section {name}": lambda section=section: (_figures(*found) for found in section(settings))
        for name, section in SECTIONS.items()
    }
    sections = list(of_sections.items())
    parts: dict[str, Callable[[], Iterable[Any]]] = {
        CONTRACT[0]: lambda: [contract(device, settings.quick)],
        **dict(sections[:1]),
        CONTRACT[1]: lambda: [compiled_contract(device, settings.quick)],
        **dict(sections[1:]),
        "profile": lambda: [profiled_training(device, settings.quick, run.left() - LEAST)],
    }
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
    return next((str(result[why]) for why in ("failed", "cut_off", "left_out") if why in result), "done")


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
