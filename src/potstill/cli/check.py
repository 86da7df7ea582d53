"""Check: read the recipe and every output of a run again, and compare each with the SHA-256 that the run wrote."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from potstill.errors import UserError
from potstill.pipeline.graph import STAGES
from potstill.pipeline.manifest import MANIFEST, cleaned_outputs, damaged_outputs, stored_manifest
from potstill.pipeline.run_folder import Run
from potstill.recipe.load import is_as_saved
from potstill.recipe.step import SAVED_AS


@dataclass(frozen=True)
class CheckedStep:
    """What a check found in the folder of one finished step, or of the run's recipe."""

    name: str
    files: int
    """The number of outputs."""
    damaged: dict[str, str]
    """A word for each file that is not as it was written: `missing`, `damaged` or `unreadable`."""
    cleaned: int = 0
    """The number of outputs that `potstill clean` removed."""

    def line(self) -> str:
        """One line for people."""
        if not self.damaged:
            removed = f"; `potstill clean` removed {self.cleaned}" if self.cleaned else ""
            return f"{self.name}: whole, {self.files} file{'s' * (self.files != 1)}{removed}"
        return f"{self.name}: {', '.join(f'{name} is {word}' for name, word in self.damaged.items())}"


def check(folder: Path) -> Iterator[CheckedStep]:
    """Check the recipe and the outputs of every finished step, also of steps that the recipe no longer has.

    Nothing is remembered.

    Raises:
        UserError: the folder is no run folder.
    """
    if not (folder / SAVED_AS).is_file():
        raise UserError(f"{folder} is no run folder; `potstill run RECIPE` makes one under runs/")
    if not is_as_saved(folder):
        yield CheckedStep(SAVED_AS, 1, {SAVED_AS: "damaged"})
    run = Run(folder)
    for name in finished_steps(folder):
        try:
            manifest = stored_manifest(run.path(name))
        except UserError:
            yield CheckedStep(name, 0, {MANIFEST: "damaged"})
            continue
        assert manifest is not None, f"{name} is finished"
        wrong = damaged_outputs(run.path(name), manifest, afresh=True)
        cleaned = len(cleaned_outputs(run.path(name)))
        yield CheckedStep(name, len(manifest["outputs"]) - cleaned, wrong, cleaned)


def finished_steps(folder: Path) -> list[str]:
    """The names of the finished steps in a run folder, in the order of the stages."""
    order = {stage.name: number for number, stage in enumerate(STAGES)}
    found = []
    for stage in order:
        for at, below, files in os.walk(folder / stage):
            if MANIFEST in files:
                found.append(Path(at).relative_to(folder).as_posix())
                # The folders of a finished step are its outputs.
                below.clear()
            below.sort()
    return found
