"""Process: runs a cut recipe in a process of its own, which is killed in the middle of a training, and goes on.

`python -m potstill.rehearsal.process FOLDER interrupt`, and then the same with `finish`.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, trainer

from potstill.errors import UserError
from potstill.files import named_data
from potstill.files.atomic import write_json
from potstill.metrics import speed_rounds
from potstill.models.folder import fingerprint
from potstill.pipeline.graph import all_steps
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import Recipe, load_recipe
from potstill.recipe.step import Step
from potstill.rehearsal.memory import LOG, peak_since_last_call
from potstill.rehearsal.stand_ins import TABLE

RECIPE, RUN, AGAIN, PROVEN = "recipe.yaml", "run", "uninterrupted", "proven.json"
STOPPED_AT = 4
"""The step at which the training is killed, after its first checkpoint."""
NOT_NEEDED = ("control", "select", "answers", "evaluate", "report", "replaced", ".lock")
"""What a run has besides, when a student is trained."""
SPEED_SECONDS = 2.0
"""The seconds in which `evaluate.speed` measures."""


class LogMemory(TrainerCallback):
    """Writes down the greatest memory of each step."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add a line."""
        line = {"process": os.getpid(), "training": str(args.output_dir), "bytes": peak_since_last_call()}
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


class Kill(TrainerCallback):
    """Kills this process in the middle of a training, as a machine that loses power does."""

    def __init__(self, training: Path) -> None:
        self._training = training

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End everything at STOPPED_AT."""
        if state.global_step == STOPPED_AT and self._training in Path(str(args.output_dir)).parents:
            os.kill(os.getpid(), signal.SIGKILL)


def first_training(recipe: Recipe) -> Step:
    """The step that is interrupted."""
    return next(step for step in all_steps(recipe) if step.stage == "distil")


def interrupt(folder: Path) -> None:
    """Run the recipe until its first student is being trained, and be killed there."""
    recipe, run = load_recipe(str(folder / RECIPE)), Run(folder / RUN)
    trainer.DEFAULT_CALLBACKS.append(LogMemory(folder / LOG))
    trainer.DEFAULT_CALLBACKS.append(Kill(run.path(first_training(recipe))))
    run_recipe(recipe, run, until="distil")


def finish(folder: Path) -> None:
    """Run the recipe to its end; run it again; and train its first student again without a stop."""
    trainer.DEFAULT_CALLBACKS.append(LogMemory(folder / LOG))
    recipe, run = load_recipe(str(folder / RECIPE)), Run(folder / RUN)
    step = first_training(recipe)
    was_stopped = run.unfinished(step) is not None
    run_recipe(recipe, run)
    steps = all_steps(recipe)
    before = {str(one): run.manifest(one) for one in steps}
    run_recipe(recipe, run)
    done_before = before == {str(one): run.manifest(one) for one in steps}
    again = _trained_without_stop(recipe, run, step, folder / AGAIN)
    write_json(
        folder / PROVEN,
        {
            "stopped": str(step) if was_stopped else None,
            "stopped_at": STOPPED_AT,
            "same_weights": fingerprint(run.path(step) / "student") == fingerprint(again.path(step) / "student"),
            "nothing_left": done_before,
            "seconds": {name: manifest["cost"]["seconds"] for name, manifest in before.items() if manifest},
        },
    )


def _trained_without_stop(recipe: Recipe, run: Run, step: Step, folder: Path) -> Run:
    """A copy of the run in which only one training is done again, without a stop."""
    left_out = [run.path(step), *(run.folder / name for name in NOT_NEEDED)]
    shutil.copytree(
        run.folder, folder, ignore=lambda at, names: [name for name in names if Path(at) / name in left_out]
    )
    run_recipe(recipe, Run(folder), until="distil")
    return Run(folder)


def main() -> None:
    """Do what the command line says. A user's mistake gives one sentence and exit code 2."""
    folder, mode = Path(sys.argv[1]), {"interrupt": interrupt, "finish": finish}[sys.argv[2]]
    named_data.TABLE = folder / TABLE
    speed_rounds.SECONDS = SPEED_SECONDS
    try:
        mode(folder)
    except UserError as error:
        print(f"potstill: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
