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

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from potstill.errors import UserError
from potstill.files.atomic import remove
from potstill.models.folder import flaw

SNAPSHOTS = "snapshots"
"""Their folder within a training's."""


@dataclass(frozen=True)
class Snapshot:
    """The weights after a step."""

    step: int
    folder: Path


def snapshot_folder(training: Path, step: int) -> Path:
    """Where a training keeps its weights after a step."""
    return training / SNAPSHOTS / f"step-{step}"


def whole_snapshots(training: Path) -> list[Snapshot]:
    """The snapshots of a training that are whole, in the order of their steps."""
    found = []
    for folder in (training / SNAPSHOTS).glob("step-*"):
        step = folder.name.partition("-")[2]
        if step.isdecimal() and flaw(folder) is None:
            found.append(Snapshot(int(step), folder))
    return sorted(found, key=lambda snapshot: snapshot.step)


def select_snapshots(
    which: str, snapshots: Sequence[Snapshot], training: Path, *, waits: bool = False
) -> list[Snapshot]:
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
        raise UserError(f"`--snapshots {which}`: say `all`, `every:10`, `last:5`, or steps, as in `100,200`")
    by_step = {snapshot.step: snapshot for snapshot in snapshots}
    steps = sorted({int(step) for step in which.split(",")})
    for step in steps:
        if step not in by_step and not waits:
            check_whole(snapshot_folder(training, step))
    return [by_step[step] for step in steps if step in by_step]


def check_whole(folder: Path) -> None:
    """Refuse a folder that holds no whole model.

    Raises:
        UserError: it is not there, or a part of it is missing or cut off.
    """
    wrong = flaw(folder)
    if wrong is None:
        return
    others = [str(snapshot.step) for snapshot in whole_snapshots(folder.parent.parent)] if not folder.is_dir() else []
    there = f"; there are the steps {', '.join(others)}" if others else ""
    raise UserError(f"{folder} {wrong}{there}; name another one, or wait until it is written")


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
