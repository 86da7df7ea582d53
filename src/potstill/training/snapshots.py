"""Snapshots: the weights that a training keeps on its way, each in a folder that transformers can load.

Users look at snapshots, and `select` chooses one. A stopped training continues from a checkpoint instead (`resume`). A
snapshot is written under another name and then renamed, so that a second process can read it as soon as it appears.
"""

import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from potstill.errors import UserError
from potstill.files.atomic import remove
from potstill.files.sealed import HASHES
from potstill.models.folder import flaw

SNAPSHOTS = "snapshots"
"""The folder of snapshots within the folder of a training."""


@dataclass(frozen=True)
class Snapshot:
    """The weights after one step."""

    step: int
    folder: Path


def snapshot_folder(training: Path, step: int) -> Path:
    """The folder of a training's weights after a step."""
    return training / SNAPSHOTS / f"step-{step}"


def snapshots_of(training: Path) -> list[Snapshot]:
    """The snapshots of a training, in the order of their steps, damaged ones included."""
    named = {folder.name.partition("-")[2]: folder for folder in (training / SNAPSHOTS).glob("step-*")}
    found = [Snapshot(int(step), folder) for step, folder in named.items() if step.isdecimal()]
    return sorted(found, key=lambda snapshot: snapshot.step)


def whole_snapshots(training: Path) -> list[Snapshot]:
    """The whole snapshots of a training, in the order of their steps."""
    return [snapshot for snapshot in snapshots_of(training) if flaw(snapshot.folder) is None]


def select_snapshots(
    which: str, snapshots: Sequence[Snapshot], training: Path, *, waits: bool = False
) -> list[Snapshot]:
    """The snapshots that an option such as `last:5` names.

    Args:
        which: `all`; `every:10`, the tenth, the twentieth and so on; `last:5`; or steps, `100,200`.
        snapshots: the whole snapshots of the training, in the order of their steps.
        training: the folder of the training.
        waits: whether a missing step may still be written.

    Raises:
        UserError: `which` is none of these, or a snapshot is missing or not whole.
    """
    kind, _, number = which.partition(":")
    if which == "all":
        return list(snapshots)
    if kind in ("every", "last") and number.isdecimal() and int(number) > 0:
        count = int(number)
        return list(snapshots[count - 1 :: count] if kind == "every" else snapshots[-count:])
    if not re.fullmatch(r"\d+(,\d+)*", which):
        raise UserError(f"`--snapshots {which}`: say `all`, `every:10`, `last:5`, or steps, as in `100,200`")
    by_step = {snapshot.step: snapshot for snapshot in snapshots}
    steps = sorted({int(step) for step in which.split(",")})
    for step in steps:
        if step not in by_step and not waits:
            check_whole(snapshot_folder(training, step))
    return [by_step[step] for step in steps if step in by_step]


def check_whole(folder: Path) -> None:
    """Refuse a folder that does not hold a whole model.

    Raises:
        UserError: the folder or a part of the model is missing, or a file is cut off.
    """
    wrong = flaw(folder)
    if wrong is None:
        return
    others = [str(snapshot.step) for snapshot in whole_snapshots(folder.parent.parent)] if not folder.is_dir() else []
    there = f"; there are the steps {', '.join(others)}" if others else ""
    raise UserError(f"{folder} {wrong}{there}; name another one, or wait until it is written")


def average(folders: Sequence[Path], into: Path) -> None:
    """Write the arithmetic mean of several snapshots of one training, computed in float32.

    For adapters, each of the two matrices is averaged, and not their product: the mean of the products would have a
    higher rank than any of the adapters. Huang et al., *LoraHub*, 2023, combine adapters in the same way.

    Args:
        folders: the snapshots.
        into: a folder that does not exist yet. All files but the weights are copied from the first snapshot.
    """
    shutil.copytree(folders[0], into, ignore=shutil.ignore_patterns(HASHES))
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
        # Buffers that are not trained, such as positions.
        return first
    total = torch.zeros_like(first, dtype=torch.float32)
    for tensor in tensors:
        total += tensor.float()
    return (total / len(tensors)).to(first.dtype)
