"""Section `trainers`: whole steps of real Trainers, loader and optimizer included, over transformers.Trainer's with CE.

Each trainer gets a copy of the same models, the same rows, AdamW and one thread. It is built anew in each round, and
its first step is not counted. A time is that from the end of a step to the end of the next.
"""

import gc
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.aims import Measured
from benchmarks.captured import write_store
from benchmarks.memory import MIB, resident
from benchmarks.models import Pair, Shape
from benchmarks.peers import missing
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import Times
from benchmarks.trl_trainers import BETA, distillation_trainer, gkd_trainer
from potstill import DistilTrainer, Loss, TargetStore
from potstill.data.collators import Collator

CE = Loss("cross_entropy")
WITH_CE = {kind: (Loss(kind, 0.5), Loss("cross_entropy", 0.5)) for kind in ("forward_kl", "jsd")}
NAMES = {"forward_kl": "KL", "jsd": "JSD"}
PLAIN = "transformers.Trainer, CE"
GKD, DISTILLATION = "TRL GKDTrainer", "TRL DistillationTrainer"
COUNTED = 2
"""Steps of one training that are timed."""

Build = Callable[[dict[str, Any]], Trainer]


def shapes(settings: Settings) -> list[Shape]:
    """One shape for each vocabulary. On a CPU a step takes some seconds."""
    if settings.device.type == "cuda":
        large = Shape(32000, 2048, student_layers=4, teacher_layers=8, rows=8, length=1024)
        return [large, replace(large, vocabulary=128256)]
    if settings.quick:
        return [Shape(2000, 64, 1, 1, rows=2, length=32)]
    return [Shape(rows=2), Shape(128256, 384, 2, 4, rows=2)]


def section(settings: Settings, some: Sequence[Shape] | None = None) -> tuple[list[Table], list[Measured]]:
    """Measure every trainer: a table for each vocabulary and number format, and the figures for the aim.

    Args:
        settings: those of the run.
        some: the shapes to measure, if not all.
    """
    tables, measured = [], []
    for shape in shapes(settings) if some is None else some:
        for dtype in (torch.float32, torch.bfloat16):
            if dtype == torch.float32 and settings.device.type == "cuda":
                continue
            with tempfile.TemporaryDirectory() as folder:
                table, found = steps(Pair(shape, dtype, settings.device), settings, Path(folder))
            tables.append(table)
            measured += found
    return tables, measured


def steps(pair: Pair, settings: Settings, folder: Path) -> tuple[Table, list[Measured]]:
    """The steps of one pair of models."""
    say(f"whole steps of trainers: {pair.title}")
    times, memory = _times(trainers(pair, settings, folder), pair, settings, folder)
    table = Table(
        f"Whole Trainer steps, {pair.title}",
        ("trainer", "over Trainer with CE: median (best)", "over the fastest peer", "ms", "peak memory, MiB"),
        f"{settings.rounds} rounds of {COUNTED} steps. Student of {pair.shape.student_layers} layers, teacher of "
        f"{pair.shape.teacher_layers}; AdamW. TRL's trainers take the divergence alone, from the same rows: none is "
        "generated. Memory: the peak of a training above the loaded models, so gradients and optimizer count.",
    )
    measured = []
    for name in times.seconds:
        peers = peers_of(name, list(times.seconds))
        beside = ""
        if peers:
            ratio = times.ratio(name, [times.fastest(peers)])
            # To be behind must be seen.
            beside = str(ratio) if ratio.median < 1 else f"**{ratio}**"
            measured.append(Measured("trainers", ratio, f"{name}, {pair.title}"))
        cells = str(times.ratio(name, [PLAIN])), beside, f"{times.median(name) * 1e3:.0f}", f"{memory[name]:.0f}"
        table.add(name, *cells)
    return table, measured


def peers_of(name: str, all_names: list[str]) -> list[str]:
    """The other projects' trainers that one of ours is compared with: those of the same divergence, or of CE."""
    if not name.startswith("potstill"):
        return []
    kind = next((short for short in NAMES.values() if f", {short} + CE" in name and "captured" not in name), "CE")
    return [one for one in all_names if not one.startswith("potstill") and one.endswith(f", {kind}")]


def trainers(pair: Pair, settings: Settings, folder: Path) -> dict[str, Build]:
    """A function that builds each trainer, by the trainer's name in the table."""
    rows = write_store(folder / "store", pair)
    store = TargetStore(folder / "store", expect=None)
    found: dict[str, Build] = {PLAIN: lambda fields: _plain(pair, rows, fields)}
    if settings.device.type == "cuda" and "Liger" not in missing():
        found["transformers.Trainer and Liger kernels, CE"] = lambda fields: _plain(
            pair, rows, fields | {"use_liger_kernel": True}
        )
    for compiled in (False, True) if not settings.quick else (False,):
        own = "potstill, compiled" if compiled else "potstill"

        def ours(losses: tuple[Loss, ...], teacher: Any, compile: bool = compiled) -> Build:
            return lambda fields: _ours(pair, rows, fields, losses=losses, teacher=teacher, compile=compile)

        found[f"{own}, CE"] = ours((CE,), None)
        found |= {f"{own}, {NAMES[kind]} + CE": ours(WITH_CE[kind], pair.teacher) for kind in WITH_CE}
        found[f"{own}, captured KL + CE"] = ours(WITH_CE["forward_kl"], store)
    if "TRL" not in missing():
        for kind in WITH_CE:
            for name, build in ((GKD, gkd_trainer), (DISTILLATION, distillation_trainer)):
                found[f"{name}, {NAMES[kind]}"] = lambda fields, build=build, beta=BETA[kind]: build(
                    deepcopy(pair.student), deepcopy(pair.teacher), rows, beta, fields
                )
    return found


def _plain(pair: Pair, rows: list[dict[str, list[int]]], fields: dict[str, Any]) -> Trainer:
    arguments = TrainingArguments(logging_nan_inf_filter=False, **fields)
    return Trainer(deepcopy(pair.student), arguments, train_dataset=rows, data_collator=Collator(0))


def _ours(pair: Pair, rows: list[dict[str, list[int]]], fields: dict[str, Any], **given: Any) -> Trainer:
    return DistilTrainer(model=deepcopy(pair.student), args=TrainingArguments(**fields), train_dataset=rows, **given)


def _times(
    builders: Mapping[str, Build], pair: Pair, settings: Settings, folder: Path
) -> tuple[Times, dict[str, float]]:
    """Seconds of a step, round by round, and the peak MiB of a training; trainers in a new random order each round."""
    fields = {
        "output_dir": str(folder / "out"),
        "max_steps": 1 + COUNTED,
        "per_device_train_batch_size": pair.shape.rows,
        "bf16": pair.autocast,
        "use_cpu": pair.device.type == "cpu",
        "dataloader_pin_memory": pair.device.type == "cuda",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    order, shuffle = list(builders), random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in order}
    memory = dict.fromkeys(order, 0.0)
    for _ in range(settings.rounds):
        shuffle(order)
        for name in order:
            one = builders[name](fields)
            clock = StepClock(pair.device)
            one.add_callback(clock)
            before = resident(pair.device, reset=True)
            with redirect_stdout(StringIO()):
                one.train()
            memory[name] = max(memory[name], (resident(pair.device) - before) / MIB)
            seconds[name].append(clock.mean())
            del one
            gc.collect()
    return Times(seconds), memory


class StepClock(TrainerCallback):
    """The time from the end of the first step to the end of the last: the process's own on a CPU, else the wall's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the end of a step, when the device has finished it."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
            self._ends.append(time.perf_counter())
        else:
            self._ends.append(time.process_time())

    def mean(self) -> float:
        """Seconds of a step."""
        return (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
