"""Trackers: how a run's trainings are named in trackio, W&B and TensorBoard, and the verdict that they get at the end.

The trainings themselves are logged by transformers' own callbacks. A run folder is a project. Each training is a run of
it, and so is the verdict.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from potstill.console import say
from potstill.errors import first_line
from potstill.files.named_files import named_path
from potstill.report.data import Report
from potstill.report.verdict import verdict

FOLDER = "trackers/tensorboard"
VERDICT = "verdict"


@dataclass(frozen=True)
class TrackedRun:
    """What trackers call one training, or the verdict."""

    project: str
    name: str
    tensorboard: Path
    """The folder of TensorBoard's files."""


def tracked_run(run_folder: Path, step: Path | str, training: Mapping[str, Any]) -> TrackedRun:
    """The names of a step's run.

    Args:
        run_folder: the run folder.
        step: the step's folder, or its name within the run folder.
        training: the fields of `TrainingArguments` from the recipe; `project` and `run_name` replace the folder's name.
    """
    root = run_folder.resolve()
    parts = Path(step).resolve().relative_to(root).parts if isinstance(step, Path) else (step,)
    own = "-".join(("student", *parts[1:]) if parts[0] == "distil" else parts)
    given = os.environ.get("TENSORBOARD_LOGGING_DIR")
    # Two trainings in one folder of TensorBoard would be one curve.
    logs = (root / FOLDER if given is None else named_path(given)) / own
    return TrackedRun(training.get("project") or root.name, f"{training.get('run_name') or root.name}-{own}", logs)


def tell_verdict(trackers: Sequence[str], run: TrackedRun, report: Report) -> None:
    """Log the verdict, and each model's figures, as a run of its own. A tracker that fails does not fail the report."""
    judged = verdict(report)
    text = "\n\n".join([judged.headline, *judged.sentences])
    figures = {f"{row.metric}/{row.model}": row.value for row in report.rows}
    for name, tell in TELL.items():
        if name not in trackers and not ("all" in trackers and (find_spec(name) or find_spec(f"{name}X"))):
            continue
        try:
            tell(run, text, figures)
        except Exception as error:  # noqa: BLE001 (whatever a service answers, the report is made)
            say(f"  {name} did not take the verdict ({first_line(error)})")


def _tell_tensorboard(run: TrackedRun, text: str, figures: Mapping[str, float]) -> None:
    # As transformers chooses.
    module = import_module("torch.utils.tensorboard" if find_spec("tensorboard") else "tensorboardX")
    with closing(module.SummaryWriter(str(run.tensorboard))) as writer:
        writer.add_text("verdict", text, 0)
        for name, value in figures.items():
            writer.add_scalar(name, value, 0)


def _tell_trackio(run: TrackedRun, text: str, figures: Mapping[str, float]) -> None:
    import trackio

    trackio.init(project=run.project, name=run.name, resume="allow", config={"verdict": text})
    trackio.log({**figures, "verdict": text})
    trackio.finish()


def _tell_wandb(run: TrackedRun, text: str, figures: Mapping[str, float]) -> None:
    import wandb

    with wandb.init(project=os.environ.get("WANDB_PROJECT", run.project), name=run.name) as told:
        told.summary.update({**figures, "verdict": text})


TELL: dict[str, Callable[[TrackedRun, str, Mapping[str, float]], None]] = {
    "tensorboard": _tell_tensorboard,
    "trackio": _tell_trackio,
    "wandb": _tell_wandb,
}
"""How each tracker gets a verdict. Others get the trainings only."""
