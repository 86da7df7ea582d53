"""Checkpoints: the weights that a training has kept on its way, each a folder that transformers can load.

They are *snapshots*, to be looked at and chosen from; what a stopped training goes on from is `fitting`'s own. A
snapshot is written under another name and renamed, so that a second process may look at them as they appear.
"""

import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from potstill.errors import UserError
from potstill.files.atomic import digest, read_json, remove, sha256

SNAPSHOTS = "snapshots"
"""Their folder within a training's."""
ADAPTER = "adapter_config.json"
SAID_ELSEWHERE = ("_name_or_path", "transformers_version", "base_model_name_or_path", "peft_version")
"""What configurations tell of where weights came from, and not of what they do."""


@dataclass(frozen=True)
class Snapshot:
    """The weights after a step."""

    step: int
    folder: Path


def place(training: Path, step: int) -> Path:
    """Where a training keeps its weights after a step."""
    return training / SNAPSHOTS / f"step-{step}"


def kept(training: Path) -> list[Snapshot]:
    """The snapshots of a training that are whole, in the order of their steps."""
    found = []
    for folder in (training / SNAPSHOTS).glob("step-*"):
        step = folder.name.partition("-")[2]
        if step.isdecimal() and flaw(folder) is None:
            found.append(Snapshot(int(step), folder))
    return sorted(found, key=lambda snapshot: snapshot.step)


def picked(which: str, snapshots: Sequence[Snapshot], training: Path, *, waits: bool = False) -> list[Snapshot]:
    """Those of a training's snapshots that somebody asks for.

    Args:
        which: `all`; `every:10`, the tenth, the twentieth and so on; `last:5`; or steps, `100,200`.
        snapshots: those that are whole, in the order of their steps.
        training: whose they are.
        waits: a step that is asked for may yet come.

    Raises:
        UserError: it is none of these, or a step was not kept, or is only half there.
    """
    kind, _, number = which.partition(":")
    if which == "all":
        return list(snapshots)
    if kind in ("every", "last") and number.isdecimal() and int(number) > 0:
        count = int(number)
        return list(snapshots[count - 1 :: count] if kind == "every" else snapshots[-count:])
    if not re.fullmatch(r"\d+(,\d+)*", which):
        raise UserError(f"`--checkpoints {which}`: say `all`, `every:10`, `last:5`, or steps, as in `100,200`")
    by_step = {snapshot.step: snapshot for snapshot in snapshots}
    steps = sorted({int(step) for step in which.split(",")})
    for step in steps:
        if step not in by_step and not waits:
            check(place(training, step))
    return [by_step[step] for step in steps if step in by_step]


def check(folder: Path) -> None:
    """Refuse a folder that holds no whole model.

    Raises:
        UserError: it is not there, or a part of it is missing or cut off.
    """
    wrong = flaw(folder)
    if wrong is None:
        return
    others = [str(snapshot.step) for snapshot in kept(folder.parent.parent)] if not folder.is_dir() else []
    there = f"; there are the steps {', '.join(others)}" if others else ""
    raise UserError(f"{folder} {wrong}{there}; name another one, or wait until it is written")


def flaw(folder: Path) -> str | None:
    """What is wrong with a model's folder, its weights unread but for what they say of themselves; None: nothing."""
    if not folder.is_dir():
        return "is not there"
    adapter = (folder / ADAPTER).is_file()
    config = ADAPTER if adapter else "config.json"
    if _json(folder / config) is None:
        return f"is half-written: it has no whole {config}"
    whole = "adapter_model.safetensors" if adapter else "model.safetensors"
    index = folder / f"{whole}.index.json"
    if not index.is_file():
        return _flaw_of_weights(folder / whole)
    parts = _json(index)
    if not isinstance(parts, dict) or not isinstance(parts.get("weight_map"), dict):
        return f"is half-written: it has no whole {index.name}"
    flaws = (_flaw_of_weights(folder / name) for name in sorted(set(parts["weight_map"].values())))
    return next((wrong for wrong in flaws if wrong is not None), None)


def _json(file: Path) -> Any:
    try:
        return read_json(file)
    except UserError:
        return None


def _flaw_of_weights(file: Path) -> str | None:
    if not file.is_file():
        return f"is half-written: it has no {file.name}"
    try:
        # It compares the file's length with what its own head says.
        with safe_open(file, "pt"):
            return None
    except (SafetensorError, OSError):
        return f"is half-written: its {file.name} is cut off"


def fingerprint(folder: Path) -> str:
    """What tells a model's folder from others, by content: a copy of the same weights is the same.

    Of an adapter, this says nothing of the start that it is read upon.
    """
    configs = {name: _json(folder / name) for name in ("config.json", ADAPTER) if (folder / name).is_file()}
    said = {
        name: {key: value for key, value in config.items() if key not in SAID_ELSEWHERE}
        for name, config in configs.items()
        if isinstance(config, dict)
    }
    weights = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    return digest({"weights": weights, "configs": said})


def average(folders: Sequence[Path], into: Path) -> None:
    """Write the arithmetic mean of several snapshots of one training, summed up in float32.

    Of adapters, it is the mean of each of their matrices, and not of the products of them that are added to the start:
    that one would be of a greater rank than any of them (Huang et al., *LoraHub*, 2023, combine adapters likewise).

    Args:
        folders: the snapshots.
        into: a folder that is not there yet; all but the weights is copied of the first snapshot.
    """
    shutil.copytree(folders[0], into)
    for file in sorted(folders[0].glob("*.safetensors")):
        remove(into / file.name)
        with ExitStack() as opened:
            parts = [opened.enter_context(safe_open(folder / file.name, "pt")) for folder in folders]
            names = [set(part.keys()) for part in parts]
            assert all(each == names[0] for each in names), f"{file.name}: snapshots of one training have one layout"
            mean = {name: _mean([part.get_tensor(name) for part in parts]) for name in sorted(names[0])}
            save_file(mean, into / file.name, metadata=parts[0].metadata())


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        # Numbers that nothing has trained, such as positions.
        return first
    total = torch.zeros_like(first, dtype=torch.float32)
    for tensor in tensors:
        total += tensor.float()
    return (total / len(tensors)).to(first.dtype)
