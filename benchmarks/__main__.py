"""``python -m benchmarks``: measures every section in one run and writes the page."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import (
    alignment,
    capture,
    corpus,
    crossing,
    evaluation,
    generation,
    loss,
    machine,
    memory,
    number_format,
    steps,
    store,
    trainers,
)
from benchmarks.aims import Measured, summary
from benchmarks.gpu_results import GpuResults
from benchmarks.page import page, with_section
from benchmarks.peers import missing
from benchmarks.run import Settings
from benchmarks.table import Table

SECTIONS: dict[str, Callable[[Settings], tuple[list[Table], list[Measured]]]] = {
    "loss": loss.section,
    "steps": steps.section,
    "trainers": trainers.section,
    "memory": memory.section,
    "store": store.section,
    "evaluation": evaluation.section,
    "format": number_format.section,
    "capture": capture.section,
    "corpus": corpus.section,
    "alignment": alignment.section,
    "crossing": crossing.section,
    "generation": generation.section,
}
HEADINGS = {
    "loss": "The loss head",
    "steps": "Training steps",
    "trainers": "Whole Trainer steps",
    "memory": "Memory",
    "store": "The store",
    "evaluation": "Evaluation",
    "format": "The number format",
    "capture": "Capture",
    "corpus": "The corpus",
    "alignment": "Alignment of two tokenizers",
    "crossing": "Steps across tokenizers",
    "generation": "Answers written",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the requested sections, print the page, and write it to the file of ``--write``."""
    options = _parser().parse_args(arguments)
    names = options.only.split(",") if options.only else list(SECTIONS)
    if unknown := [name for name in names if name not in SECTIONS]:
        sys.exit(f"--only: there is no section {unknown[0]!r}; the sections are {', '.join(SECTIONS)}")
    if options.into and (options.write or not options.only):
        sys.exit("--into: replaces the sections of --only in a page; give --only, and no --write")
    if options.into and not options.into.is_file():
        sys.exit(f"--into: there is no page {options.into}; --write makes one")
    start, load = time.monotonic(), machine.load()
    # A peer is compiled once for each shape and setting; torch would give up after eight.
    torch._dynamo.config.recompile_limit = 64
    settings = Settings(machine.device(), options.quick, 2 if options.quick else options.rounds)
    core = machine.pin()
    parts: list[tuple[str, list[Table]]] = []
    measured: list[Measured] = []
    gpu = GpuResults.read(options.gpu) if options.gpu else GpuResults()
    text = ""
    for name in names:
        tables, found = SECTIONS[name](settings)
        parts.append((HEADINGS[name], tables))
        measured += found
        facts = _facts(sys.argv[1:] if arguments is None else arguments, settings, core, load, start)
        of_gpu = [*gpu.measured, *measured] if settings.device.type == "cuda" else gpu.measured
        of_cpu = [] if settings.device.type == "cuda" else measured
        if options.into:
            text = with_section(
                options.into.read_text(encoding="utf-8"), HEADINGS[name], facts, summary(of_cpu, of_gpu), tables
            )
            options.into.write_text(text, encoding="utf-8")
            continue
        text = page(facts, summary(of_cpu, of_gpu), parts, gpu.markdown())
        if options.write:  # after each section, so that a stopped run leaves the finished ones
            options.write.write_text(text, encoding="utf-8")
    print(text)


def _facts(arguments: Sequence[str], settings: Settings, core: int, load: float, start: float) -> list[str]:
    """The facts of a run, for the page: command, time, machine, load, versions."""
    facts = [
        f"Command: `python -m benchmarks {shlex.join(arguments)}`",
        f"When: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {(time.monotonic() - start) / 60:.0f} minutes",
        f"Machine: {machine.processor()}; core {core}, one thread",
        f"Load before and after (this process is 1.0): {load:.1f}, {machine.load():.1f}",
        f"Versions: {machine.versions()}",
    ]
    if missing():
        facts.append(f"Peers left out, because they are not installed: {', '.join(missing())}")
    if settings.quick:
        facts.append("**A quick run: toy sizes and two rounds, to see that all of it works.**")
    return facts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="toy sizes, two rounds: does it work?")
    parser.add_argument("--only", metavar="SECTIONS", help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, default=5, help="shuffled rounds of each comparison (default: 5)")
    parser.add_argument("--gpu", type=Path, metavar="FILE", help="results of `make bench-gpu`, for the GPU's column")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page here too")
    parser.add_argument("--into", type=Path, metavar="FILE", help="replace the sections of --only in this earlier page")
    return parser


if __name__ == "__main__":
    main()
