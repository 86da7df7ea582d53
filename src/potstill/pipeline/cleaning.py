"""Cleaning: what of a run can be made again, what that would cost, and what of it was removed.

A step whose outputs were removed stays done: its manifest is whole, and `cleaned.json` beside it names what is gone. So
a run never makes it again by itself. Where a later step must run and needs it, the user is asked for `--force`.

The module imports nothing heavy, because `potstill status` uses it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from potstill.console import duration, size
from potstill.errors import UserError
from potstill.files.atomic import remove
from potstill.pipeline.graph import all_steps, needed_by
from potstill.pipeline.manifest import cleaned_outputs, remember_cleaned, stored_manifest
from potstill.pipeline.run_folder import REPLACED, Run
from potstill.recipe.step import Step

if TYPE_CHECKING:
    from potstill.recipe import Recipe


@dataclass(frozen=True)
class Removable:
    """A kind of outputs that a stage can make again."""

    stage: str
    what: str
    """In the plural."""
    has: Callable[[str], bool]
    """Whether an output, by its name in the step's folder, is of this kind."""
    readers: Callable[["Recipe"], set[str]]
    """The stages that read these outputs."""


def _readers_of_teachers(recipe: "Recipe") -> set[str]:
    trains = set() if recipe.capture is not None and not _writes_itself(recipe) else {"search", "distil"}
    return {"student", "generate", "capture", "select", "answers", "evaluate", *trains}


def _writes_itself(recipe: "Recipe") -> bool:
    return any(recipe.on_policy_of(name) is not None for name in recipe.variants)


REMOVABLE = (
    Removable("capture", "captured targets", lambda name: True, lambda recipe: {"search", "distil"}),
    Removable(
        "teachers",
        "converted teachers",
        lambda name: PurePosixPath(name).match("model*.safetensors"),
        _readers_of_teachers,
    ),
    *(
        Removable(
            stage, "snapshots of trainings", lambda name: name.startswith("snapshots/"), lambda recipe: {"select"}
        )
        for stage in ("distil", "control")
    ),
)
"""Everything that may be removed. The student, the evidence and the logs are none of it."""


@dataclass(frozen=True)
class Offer:
    """Something that may be removed from a run folder."""

    where: str
    """The step, or the folder within the run."""
    what: str
    files: dict[str, int]
    """Their bytes, by their names within `where`."""
    seconds: float | None
    """What making it again took; None if the run's recipe does not make it."""

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(self.files.values())

    @property
    def again(self) -> str:
        """What it costs to make it again, in words."""
        return "this recipe does not make it" if self.seconds is None else duration(self.seconds)


def offers(recipe: "Recipe", run: Run) -> list[Offer]:
    """What may be removed of a run: outputs of finished steps that no unfinished step will read."""
    found, finished = list[Offer](), {step: stored_manifest(run.path(step)) for step in all_steps(recipe)}
    waiting = {step.stage for step, manifest in finished.items() if manifest is None}
    for step, manifest in finished.items():
        for kind in _kinds(step):
            if manifest is None or kind.readers(recipe) & waiting:
                continue
            files = {name: made["bytes"] for name, made in manifest["outputs"].items() if kind.has(name)}
            there = {name: count for name, count in files.items() if (run.path(step) / name).is_file()}
            if there:
                found.append(Offer(str(step), kind.what, there, manifest["cost"]["seconds"]))
    old = _files_below(run.folder / REPLACED)
    return [*found, *([Offer(REPLACED, "what earlier recipes made", old, None)] if old else [])]


def clean(run: Run, chosen: Sequence[Offer]) -> None:
    """Remove what was chosen. The folder of each step keeps a list of it, which is written first."""
    for offer in chosen:
        folder = run.folder / offer.where
        if offer.seconds is None:
            remove(folder)
            continue
        remember_cleaned(folder, offer.files)
        for name in offer.files:
            (folder / name).unlink(missing_ok=True)
        _remove_empty_folders(folder)


def refuse_what_was_cleaned(recipe: "Recipe", run: Run, steps: Sequence[Step]) -> None:
    """Refuse steps that would read what was removed.

    Args:
        recipe: the run's recipe.
        run: the run.
        steps: all steps that are about to run.

    Raises:
        UserError: one of them needs a removed output of a step that is not among them.
    """
    for step in steps:
        for needed in needed_by(recipe, step):
            if needed in steps or step.stage not in _readers(recipe, run, needed):
                continue
            manifest = stored_manifest(run.path(needed))
            assert manifest is not None, f"{needed} was cleaned, so it was done"
            raise UserError(
                f"{step} needs what `potstill clean` removed of {needed}; `--force {needed.stage}` makes it again (it "
                f"took {duration(manifest['cost']['seconds'])})"
            )


def check_there(run: Run, step: Step) -> None:
    """Check that nothing of a step was removed, for a verb that reads its outputs.

    Raises:
        UserError: `potstill clean` removed some of them.
    """
    if cleaned_outputs(run.path(step)):
        raise UserError(
            f"`potstill clean` removed files of {step} in {run.folder}, which this needs; "
            f"`potstill {step.stage} RECIPE --force` makes them again"
        )


def removed_lines(run: Run, steps: Sequence[Step]) -> list[str]:
    """A line about each step of which something was removed."""
    gone = {step: cleaned_outputs(run.path(step)) for step in steps}
    return [
        f"{step}: `potstill clean` removed {len(files)} file{'s' * (len(files) != 1)}, {size(sum(files.values()))}"
        for step, files in gone.items()
        if files
    ]


def _readers(recipe: "Recipe", run: Run, needed: Step) -> set[str]:
    """The stages that cannot run, because outputs of this step were removed."""
    gone = cleaned_outputs(run.path(needed))
    kinds = [kind for kind in _kinds(needed) if any(map(kind.has, gone))]
    return {stage for kind in kinds for stage in kind.readers(recipe)}


def _kinds(step: Step) -> Iterator[Removable]:
    return (kind for kind in REMOVABLE if kind.stage == step.stage)


def _files_below(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for at, _, names in os.walk(folder):
        for file in (Path(at) / name for name in names):
            found[file.relative_to(folder).as_posix()] = file.lstat().st_size
    return found


def _remove_empty_folders(folder: Path) -> None:
    for at, below, names in os.walk(folder, topdown=False):
        if Path(at) != folder and not names and not any((Path(at) / name).exists() for name in below):
            Path(at).rmdir()
