"""Rehearse: makes the stand-ins of a recipe, runs it, interrupts it, and writes down what that proves."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from potstill.console import duration, say, size, table
from potstill.errors import UserError
from potstill.files.atomic import read_json, write_json, write_text
from potstill.recipe import Recipe
from potstill.recipe.teachers import NamedTeacher
from potstill.rehearsal.cut import CutRecipe, cut_recipe
from potstill.rehearsal.hub import hub
from potstill.rehearsal.memory import LOG, MemoryOfTraining, memory_of_trainings
from potstill.rehearsal.process import AGAIN, PROVEN, RECIPE, RUN
from potstill.rehearsal.small_models import parameters
from potstill.rehearsal.stand_ins import DATA, make_stand_ins
from potstill.rehearsal.story_model import SHAPE

RESULT, ERRORS = "rehearsal.json", "errors.txt"
KILLED = -9
ALWAYS = (
    "that the hub has these repositories, files and columns today, and gives them to you",
    "memory, time and energy at full size",
    "what the students learn",
)
"""What only the real run can show."""


def rehearse(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Run a recipe with small models and short texts, without a network.

    Args:
        recipe: the recipe as it stands.
        folder: for everything that the rehearsal makes. An earlier rehearsal there is removed.

    Returns:
        What was cut and what was proven: the content of `rehearsal.json`.

    Raises:
        UserError: the folder is not a rehearsal's, a model is unknown, or the pipeline stops with an error.
    """
    began, folder = time.monotonic(), folder.absolute()
    _clear(folder)
    cut = cut_recipe(recipe)
    # First, so that a rehearsal that is stopped from here on can be repeated in its folder.
    write_text(folder / RECIPE, json.dumps(cut.content, indent=1))
    repositories = make_stand_ins(cut, folder)
    # Models in folders have other names now.
    write_text(folder / RECIPE, json.dumps(cut.content, indent=1))
    vocabulary = _vocabulary(cut)
    models = {
        key: {"parameters": parameters(whole, vocabulary), "rehearsed": parameters(small, vocabulary)}
        for key, (whole, small) in cut.models.items()
    }
    say(_cuts_table(cut, models))
    with hub(repositories) as address:
        environment = _environment(folder, address)
        stopped = _process(folder, "interrupt", environment)
        if stopped not in (0, KILLED):
            raise _failure(folder, stopped)
        if (ended := _process(folder, "finish", environment)) != 0:
            raise _failure(folder, ended)
    proven = read_json(folder / PROVEN)
    memory = memory_of_trainings(folder / LOG, folder / RUN, folder / AGAIN)
    result = {
        "recipe": recipe.about,
        "models": models,
        "cuts": {key: {"before": before, "after": after} for key, (before, after) in cut.cuts.items()},
        **proven,
        "memory": [asdict(one) | {"grows": one.grows} for one in memory],
        "minutes": (time.monotonic() - began) / 60,
        "only_the_real_run_shows": [*ALWAYS, *cut.notes],
    }
    result["passed"] = proven["same_weights"] and proven["nothing_left"] and not any(one.grows for one in memory)
    write_json(folder / RESULT, result)
    say(_summary(result, memory))
    return result


def _vocabulary(cut: CutRecipe) -> int | None:
    """The vocabulary size of models that say none: that of the trained tokenizer or of the first teacher."""
    trained = (cut.content.get("tokenizer") or {}).get("vocab_size")
    named = any(isinstance(teacher, NamedTeacher) for teacher in cut.recipe.teachers.values())
    known = SHAPE.vocabulary if named else None
    return trained or next((files.config.get("vocab_size") for files in cut.files.values()), known)


def _clear(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / RECIPE).is_file():
        raise UserError(f"{folder} has files that no rehearsal made; name another `--folder`")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _environment(folder: Path, address: str) -> dict[str, str]:
    """The variables of the process: it reaches nothing but the stand-in of the hub, and no cache or token of yours."""
    foreign = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "TRANSFORMERS_CACHE", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    own = {"HF_ENDPOINT": address, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    quiet = dict.fromkeys(("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"), "1")
    local = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [kept.get("PYTHONPATH")])])
    data = str(folder / DATA)
    return {
        **kept,
        **own,
        **quiet,
        **local,
        "PYTHONPATH": path,
        "POTSTILL_DATA": data,
        "DATASETS_VERBOSITY": "critical",
    }


def _process(folder: Path, mode: str, environment: Mapping[str, str]) -> int:
    """Run :mod:`potstill.rehearsal.process`. Returns its exit code; negative is the signal that ended it."""
    command = [sys.executable, "-m", "potstill.rehearsal.process", str(folder), mode]
    with (folder / ERRORS).open("w", encoding="utf-8") as errors:
        return subprocess.run(command, env=environment, stderr=errors, check=False).returncode


def _failure(folder: Path, code: int) -> UserError:
    lines = [line.strip() for line in (folder / ERRORS).read_text(encoding="utf-8").splitlines() if line.strip()]
    reason = lines[-1].removeprefix("potstill: ") if lines else "it says nothing of why"
    if code == KILLED:
        # What a library wrote last is not the reason.
        reason = "its process was killed; a system does so when memory runs out"
    return UserError(f"the rehearsal stopped: {reason} (all that it wrote on stderr is in {folder / ERRORS})")


def _cuts_table(cut: CutRecipe, models: Mapping[str, Mapping[str, int]]) -> str:
    rows = [("cut", "as it stands", "rehearsed")]
    rows += [
        (key, f"{one['parameters']:,} parameters", f"{one['rehearsed']:,} parameters") for key, one in models.items()
    ]
    rows += [(key, _shown(before), _shown(after)) for key, (before, after) in cut.cuts.items()]
    return table(rows)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _summary(result: Mapping[str, Any], memory: list[MemoryOfTraining]) -> str:
    verdict = "passed" if result["passed"] else "did not pass"
    lines = [f"the rehearsal {verdict}, in {duration(60 * result['minutes'])}: {len(result['seconds'])} steps"]
    if result["stopped"] is None:
        lines.append("  resume: no training was long enough to be killed in the middle")
    else:
        same = "as" if result["same_weights"] else "not as"
        lines.append(
            f"  resume: {result['stopped']} was killed at step {result['stopped_at']} and went on; its weights are "
            f"{same} those of a training without a stop"
        )
    lines.append(f"  a second run had {'nothing' if result['nothing_left'] else 'something'} to do")
    for one in memory:
        trend = "grows" if one.grows else "does not grow"
        middle, last = size(one.middle), size(one.last)
        lines.append(f"  memory {trend} in the {one.steps} steps of {one.training}: {middle}, and {last} at the end")
    lines += ["only the real run shows", *(f"  {one}" for one in result["only_the_real_run_shows"])]
    return "\n".join(lines)
