"""Section `trainers`: whole steps of real Trainers, loader and optimizer included, over transformers.Trainer's with CE.

Each trainer gets a copy of the same models, the same rows, AdamW and one thread. It is built anew in each round, and
its first step is not counted. A time is that from the end of a step to the end of the next.
"""

import gc
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.models.llama import modeling_llama

from benchmarks.aims import Measured
from benchmarks.captured import write_store
from benchmarks.checking import MOST
from benchmarks.memory import MIB, resident
from benchmarks.models import Pair, Shape
from benchmarks.peers import missing
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import Ratio, Times
from benchmarks.trl_trainers import BETA, Rows, distillation_trainer, gkd_trainer
from potstill import DistilTrainer, Loss, TargetStore
from potstill.data.collators import Collator
from potstill.errors import first_line

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
        return [Shape(vocabulary, 64, 1, 1, rows=2, length=32) for vocabulary in (2000, 4000)]
    return [Shape(rows=2), Shape(128256, 384, 2, 4, rows=2)]


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure every trainer: a table for each vocabulary and number format, and the figures for the aim."""
    return list(so_far(settings, shapes(settings)))[-1]


def so_far(settings: Settings, some: Sequence[Shape]) -> Iterator[tuple[list[Table], list[Measured]]]:
    """What is measured of these shapes so far, after each training."""
    tables: list[Table] = []
    measured: list[Measured] = []
    for shape in some:
        for dtype in (torch.float32, torch.bfloat16):
            if dtype == torch.float32 and settings.device.type == "cuda":
                continue
            with tempfile.TemporaryDirectory() as folder:
                for table, found in steps(Pair(shape, dtype, settings.device), settings, Path(folder)):
                    yield [*tables, table], [*measured, *found]
            tables.append(table)
            measured += found


def steps(pair: Pair, settings: Settings, folder: Path) -> Iterator[tuple[Table, list[Measured]]]:
    """The steps of one pair of models: the table and the figures so far, after each training."""
    say(f"whole steps of trainers: {pair.title}")
    builders = trainers(pair, settings, folder)
    for trained in _trainings(builders, pair, settings, folder):
        yield _table(trained, pair), _measured(trained, pair)


@dataclass
class Trained:
    """What the trainings so far took.

    Args:
        names: all trainers, also those that are not measured yet.
    """

    names: Sequence[str]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of a step, round by round."""
    memory: dict[str, float] = field(default_factory=dict)
    """MiB at the peak of a training above the loaded models."""
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def times(self) -> Times:
        """The times of the rounds that all measured trainers have finished."""
        rounds = min(map(len, self.seconds.values()), default=0)
        return Times({name: self.seconds[name][:rounds] for name in self.names if name in self.seconds})

    def over_peers(self, name: str) -> Ratio | None:
        """One of ours over the fastest of its peers; None without peers, or while one of them is not measured."""
        peers = [one for one in peers_of(name, list(self.names)) if one not in self.failed]
        if not peers or not all(one in self.seconds for one in peers):
            return None
        return self.times.ratio(name, [self.times.fastest(peers)])


def _measured(trained: Trained, pair: Pair) -> list[Measured]:
    found = ((name, trained.over_peers(name)) for name in trained.times.seconds)
    return [Measured("trainers", ratio, f"{name}, {pair.title}") for name, ratio in found if ratio is not None]


def _table(trained: Trained, pair: Pair) -> Table:
    times = trained.times
    rounds = len(next(iter(times.seconds.values()), ()))
    table = Table(
        f"Whole Trainer steps, {pair.title}",
        ("trainer", "over Trainer with CE: median (best)", "over the fastest peer", "ms", "peak memory, MiB"),
        f"{rounds} rounds of {COUNTED} steps. Student of {pair.shape.student_layers} layers, teacher of "
        f"{pair.shape.teacher_layers}; AdamW. TRL's trainers take the divergence alone, from the same rows: none is "
        "generated. Memory: the peak of a training above the loaded models, so gradients and optimizer count."
        + memory_of_ours(trained.memory),
    )
    for name in times.seconds:
        ratio, over = trained.over_peers(name), str(times.ratio(name, [PLAIN])) if PLAIN in times.seconds else ""
        # To be behind must be seen.
        beside = "" if ratio is None else str(ratio) if ratio.median < 1 else f"**{ratio}**"
        table.add(name, over, beside, f"{times.median(name) * 1e3:.0f}", f"{trained.memory[name]:.0f}")
    for name, why in trained.failed.items():
        table.add(name, why, "", "", "")
    return table


def memory_of_ours(memory: Mapping[str, float]) -> str:
    """A sentence that says how the peaks of our trainers compare with that of Trainer with cross-entropy."""
    peaks = [peak for name, peak in memory.items() if name.startswith("potstill")]
    if not peaks or PLAIN not in memory:
        return ""
    least, most = (peak / memory[PLAIN] - 1 for peak in (min(peaks), max(peaks)))
    if least < 0 < most:
        return f" potstill's peaks lie between {-least:.0%} below and {most:.0%} above that of `{PLAIN}`."
    fewer, more = sorted((abs(least), abs(most)))
    return f" potstill's peaks lie {fewer:.0%} to {more:.0%} {'above' if most > 0 else 'below'} that of `{PLAIN}`."


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
    with_liger = {"use_liger_kernel": True} if settings.device.type == "cuda" and "Liger" not in missing() else {}
    if with_liger:
        found["transformers.Trainer and Liger kernels, CE"] = lambda fields: _plain(pair, rows, fields | with_liger)
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
                theirs = partial(_theirs, build, pair, rows, BETA[kind])
                found[f"{name}, {NAMES[kind]}"] = theirs
                if with_liger:
                    found[f"{name} and Liger kernels, {NAMES[kind]}"] = lambda fields, theirs=theirs: theirs(
                        fields | with_liger
                    )
    return found


def _plain(pair: Pair, rows: Rows, fields: dict[str, Any]) -> Trainer:
    arguments = TrainingArguments(logging_nan_inf_filter=False, **fields)
    return Trainer(deepcopy(pair.student), arguments, train_dataset=rows, data_collator=Collator(0))


def _theirs(build: Any, pair: Pair, rows: Rows, beta: float, fields: dict[str, Any]) -> Trainer:
    trainer: Trainer = build(deepcopy(pair.student), deepcopy(pair.teacher), rows, beta, fields)
    return trainer


def _ours(pair: Pair, rows: Rows, fields: dict[str, Any], **given: Any) -> Trainer:
    return DistilTrainer(model=deepcopy(pair.student), args=TrainingArguments(**fields), train_dataset=rows, **given)


def _trainings(builders: Mapping[str, Build], pair: Pair, settings: Settings, folder: Path) -> Iterator[Trained]:
    """The trainings so far, after each of them; trainers in a new random order each round.

    A trainer that fails does not run again. transformers' own must run: it is the scale.
    """
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
    trained, order, shuffle = Trained(list(builders)), list(builders), random.Random(0).shuffle
    for _ in range(settings.rounds):
        shuffle(order)
        for name in [one for one in order if one not in trained.failed]:
            try:
                seconds, peak = _train(lambda name=name: builders[name](fields), pair.device)
            except Exception as error:
                if name == PLAIN or name.startswith("potstill"):
                    raise
                trained.failed[name] = f"failed: {type(error).__name__}: {first_line(error)[:MOST]}"
                trained.seconds.pop(name, None)
            else:
                trained.seconds.setdefault(name, []).append(seconds)
                trained.memory[name] = max(trained.memory.get(name, 0.0), peak)
            gc.collect()
            yield trained


def _train(build: Callable[[], Trainer], device: torch.device) -> tuple[float, float]:
    """Seconds of a step, and the peak MiB of the training."""
    with own_kernels():
        one = build()
        clock = StepClock(device)
        one.add_callback(clock)
        before = resident(device, reset=True)
        with redirect_stdout(StringIO()):
            one.train()
        return clock.mean(), (resident(device) - before) / MIB


@contextmanager
def own_kernels() -> Iterator[None]:
    """Undo what a trainer replaces in transformers: Liger's rotary embedding would stay for the trainers after it."""
    before = dict(vars(modeling_llama))
    try:
        yield
    finally:
        vars(modeling_llama).update(before)


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
