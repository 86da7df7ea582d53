"""Machines: what a plan must know of the one that will run the recipe. This one is measured, others are described."""

import difflib
import math
import os
import shutil
import time
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from potstill.cost import Cost, measure
from potstill.device import device, device_name, time_products
from potstill.errors import first_line
from potstill.planning.kernels import attention_rates, elementwise_rate, new_memory_rate
from potstill.planning.ranges import Range
from potstill.recipe.error_messages import complaint
from potstill.recipe.section import Section
from potstill.recipe.training_fields import Positive
from potstill.training.memory import memory_of_device, memory_of_host

GB, GIB = 1e9, 2.0**30
HERE = "this machine"
FORMATS = ("fp32", "bf16")
SHARE_MEASURED = {"fp32": Range(0.6, 0.86, 1.0), "bf16": Range(0.45, 0.72, 1.0)}
"""The share of one product's measured rate that the products of whole models reach."""
SHARE_STATED = Range(0.2, 0.4, 0.65)
"""The share of a datasheet's rate that the products of whole models reach."""
CALL_SECONDS = {"cpu": Range(3e-6, 8e-6, 20e-6), "cuda": Range(3e-6, 7e-6, 15e-6)}
"""What an operation costs besides its work."""
SHARE_OF_ATTENTION, SHARE_OF_ELEMENTWISE = Range(0.6, 1.0, 1.5), Range(0.25, 0.6, 1.2)
SHARE_OF_NEW_MEMORY = Range(0.5, 1.0, 1.6)
"""The share of the measured rates of attention, of operations on each element and of new memory that those of whole
models reach. The tensors that are measured stay in the CPU's caches more often than those of a training."""
SHARE_OF_BANDWIDTH = {"cpu": Range(0.3, 0.8, 2.0), "cuda": Range(0.4, 0.7, 0.9)}
"""The share of the bandwidth that small operations reach. On a CPU, their tensors are partly in its caches."""
WATTS_STATED, WATTS_MEASURED = Range(0.6, 1.0, 1.1), Range(0.7, 1.0, 1.5)
"""The share of a stated power, and of that which the meter read during one product, that a machine takes in a run."""
COPIED = 2**26
"""Bytes that are copied to measure the bandwidth."""

PROCESS = Range(0.4 * GIB, 0.9 * GIB, 1.6 * GIB)
"""Bytes of a process with Python, torch and transformers."""


class Described(Section):
    """A machine in a YAML file."""

    about: str = ""
    """One sentence about the machine."""

    devices: int = Field(1, gt=0)
    """The number of its accelerators. Default: 1."""

    device_memory_gib: Positive | None = None
    """The memory of one accelerator, in GiB. Without this key, the machine has none."""

    host_memory_gib: Positive | None = None
    """The memory of the machine, in GiB."""

    free_disk_gb: Positive | None = None
    """The free space on its disk, in GB."""

    tflops: dict[str, Positive] = Field(default_factory=dict)
    """Additions and multiplications of matrix products a second of one device, in 10^12, for `fp32` and `bf16`."""

    bandwidth_gb_s: Positive | None = None
    """The bandwidth of the memory of one device, in GB a second."""

    watts: Positive | None = None
    """The power of the whole machine under load."""

    price_per_hour: Positive | None = None
    """The price of an hour."""

    currency: str | None = None
    """The currency of the price."""


@dataclass(frozen=True)
class Ranks:
    """How many processes share the work of a run."""

    all: int = 1
    """On all machines."""
    here: int = 1
    """On this one."""


@dataclass(frozen=True)
class Machine:
    """A machine. None stands for what is not known."""

    name: str
    kind: str = "cpu"
    """`cpu`, or `cuda` for a machine with accelerators."""
    devices: int = 1
    device_memory: float | None = None
    """Bytes of one accelerator."""
    host_memory: float | None = None
    """Bytes."""
    free_disk: float | None = None
    """Bytes of the disk of the run folder."""
    free_cache: float | None = None
    """Bytes of the disk of the hub's cache, where that is not the disk of the run folder."""
    is_here: bool = False
    """Whether it is this machine, so that what its hub cache has is known."""
    ranks: Ranks | None = None
    """The processes that a launcher has started; None: one for each accelerator."""
    rates: dict[str, Range] = field(default_factory=dict)
    """Additions and multiplications of products a second of one device, by number format."""
    bandwidth: Range | None = None
    """Bytes a second that one device reads and writes."""
    attention: dict[tuple[str, int], tuple[Range, Range]] = field(default_factory=dict)
    """The rates of attention in forwards and in backwards, as `rates`, by number format and length of samples; empty
    where attention is as fast as products."""
    elementwise: Range | None = None
    """Bytes a second of operations on each element; None where they reach the bandwidth."""
    new_memory: Range | None = None
    """Bytes a second that the system gives anew. None: not known, or no cost, as on a GPU, whose freed memory is
    kept."""
    watts: Range | None = None
    """Of the whole machine under load."""
    price: float | None = None
    """Of an hour, in `currency`."""
    currency: str | None = None
    baseline: Range = PROCESS
    """Bytes of the host's memory that a process has before its work: Python and its libraries."""
    notes: tuple[str, ...] = ()

    @property
    def memory(self) -> float | None:
        """The bytes of the memory in which models are trained."""
        return self.device_memory if self.kind == "cuda" else self.host_memory

    def attention_rates(self, precision: str, length: int) -> tuple[Range, Range]:
        """The rates of attention in a forward and in a backward, for samples of a length."""
        known = [measured for form, measured in self.attention if form == precision]
        if not known:
            return self.rates[precision], self.rates[precision]
        return self.attention[precision, min(known, key=lambda measured: abs(math.log(measured / length)))]

    @property
    def call(self) -> Range:
        """The seconds that an operation costs besides its work."""
        return CALL_SECONDS[self.kind]


def described_machines() -> dict[str, Machine]:
    """The machines that the package describes, by name."""
    text = (resources.files("potstill.planning") / "machines.yaml").read_text(encoding="utf-8")
    return {name: _machine(name, Described.model_validate(fields)) for name, fields in _yaml(text).items()}


def machine_named(name: str | None, folder: Path, widths: tuple[int, int]) -> Machine:
    """A machine by its name or its file; without either, this one. What is wrong with it, its `notes` say.

    Args:
        name: a name in `machines.yaml`, or a YAML file.
        folder: the place of the run, for the free space of its disk.
        widths: of a typical layer, whose product is timed on this machine.
    """
    if name is None:
        return this_machine(folder, widths)
    if Path(name).is_file():
        return _from_file(Path(name))
    known = described_machines()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    note = (
        f"nobody described a machine {name!r}: {hint}The known ones are {', '.join(known)}; or give a YAML file, as "
        "docs/plan.md describes it"
    )
    return Machine(name, notes=(note,))


def _from_file(file: Path) -> Machine:
    try:
        raw = _yaml(file.read_text(encoding="utf-8"))
        return _machine(file.stem, Described.model_validate(raw))
    except ValidationError as error:
        wrong = complaint(error, raw)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        wrong = f"cannot be read ({first_line(error)})"
    return Machine(file.stem, notes=(f"the machine {file} is not used: {wrong}",))


def _yaml(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text) or {}


def _machine(name: str, given: Described) -> Machine:
    notes = []
    kind = "cpu" if given.device_memory_gib is None else "cuda"
    if given.price_per_hour is not None and given.currency is None:
        notes.append(f"`price_per_hour` of {name} has no `currency`, so no money is given; add it")
    for unknown in sorted(set(given.tflops) - set(FORMATS)):
        notes.append(f"`tflops.{unknown}` of {name} is no number format of a recipe; there are fp32 and bf16")
    priced = given.price_per_hour is not None and given.currency is not None
    return Machine(
        name=name,
        kind=kind,
        devices=given.devices,
        device_memory=None if given.device_memory_gib is None else given.device_memory_gib * GIB,
        host_memory=None if given.host_memory_gib is None else given.host_memory_gib * GIB,
        free_disk=None if given.free_disk_gb is None else given.free_disk_gb * GB,
        rates={one: SHARE_STATED * (given.tflops[one] * 1e12) for one in FORMATS if one in given.tflops},
        bandwidth=None if given.bandwidth_gb_s is None else SHARE_OF_BANDWIDTH[kind] * (given.bandwidth_gb_s * GB),
        watts=None if given.watts is None else WATTS_STATED * given.watts,
        price=given.price_per_hour if priced else None,
        currency=given.currency if priced else None,
        notes=tuple(notes),
    )


def this_machine(folder: Path, widths: tuple[int, int]) -> Machine:
    """This machine, with the rates of a product of these widths, which are measured now."""
    found = _measured(widths)
    (disk, free), (disk_of_cache, free_of_cache) = _disk_of(folder), _disk_of(Path(constants.HF_HUB_CACHE))
    return replace(found, free_disk=free, free_cache=None if disk_of_cache == disk else free_of_cache, is_here=True)


def _disk_of(folder: Path) -> tuple[int, float]:
    """The number of the disk on which a folder is, or will be, and the free bytes of that disk."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return there.stat().st_dev, float(shutil.disk_usage(there).free)


@cache
def _measured(widths: tuple[int, int]) -> Machine:
    with measure() as meter:
        products = time_products(*widths)
    on_cpu = device().type == "cpu"
    measured = {"fp32": products.rate(products.fp32), "bf16": products.rate(products.bf16)}
    return Machine(
        name=f"{HERE} ({device_name()})",
        kind="cpu" if on_cpu else "cuda",
        devices=1 if on_cpu else torch.accelerator.device_count(),
        device_memory=None if on_cpu else float(memory_of_device()),
        host_memory=float(memory_of_host()),
        rates={one: SHARE_MEASURED[one] * rate for one, rate in measured.items()},
        bandwidth=SHARE_OF_BANDWIDTH["cpu" if on_cpu else "cuda"] * _bandwidth(),
        attention={
            key: (SHARE_OF_ATTENTION * rates.forward, SHARE_OF_ATTENTION * rates.backward)
            for key, rates in (attention_rates() if on_cpu else {}).items()
        },
        elementwise=SHARE_OF_ELEMENTWISE * elementwise_rate() if on_cpu else None,
        new_memory=SHARE_OF_NEW_MEMORY * new_memory_rate() if on_cpu else None,
        watts=_watts(meter.cost),
        baseline=_baseline(),
    )


def _watts(spent: Cost) -> Range | None:
    """The power that the meter of a run's own costs reads; None if it reads none."""
    return WATTS_MEASURED * (spent.kwh * 3.6e6 / spent.seconds) if spent.kwh else None


def _bandwidth() -> float:
    """The bytes a second of a copy, read and written: the best of three."""
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device())
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        target.copy_(source)
        if source.device.type != "cpu":
            torch.accelerator.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * COPIED / best


def _baseline() -> Range:
    """The memory of a process like this one. A run imports more than a plan, and keeps some of it from step to step:
    after some trainings of a small model, 1.9 GB."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return PROCESS
    now = float(pages * os.sysconf("SC_PAGE_SIZE"))
    return Range(min(now, 0.4 * GIB), min(max(now, 0.85 * GIB), GIB), max(now, 1.8 * GIB))
