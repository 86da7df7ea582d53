"""search: try settings of the losses in short trainings, and find the one that is best on the validation split.

Makes `search/best.json`, the setting for the students' training; `ranking.json`, all trials from best to worst; and
`trials.jsonl`, the result of each trial. Trial 0 has the recipe's own setting, so that the best setting is compared
with it. A stopped search continues within its trial, and then makes the same proposals.
"""

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from potstill import distributed
from potstill.console import duration, say
from potstill.errors import DivergedError, UserError
from potstill.files.atomic import remove, write_json
from potstill.files.jsonl_log import JsonlLog
from potstill.files.sealed import read_sealed, write_sealed
from potstill.pipeline import training_data
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.distributed import training_fields
from potstill.recipe.losses import GivenLoss
from potstill.recipe.search import Search, Setting, setting_of, with_setting
from potstill.recipe.step import Step
from potstill.stages.distil import check as check_students
from potstill.stages.distil import student_fit, teachers_or_targets, trainer_losses, with_teachers
from potstill.training.arguments import check_training
from potstill.training.fit import CHECKPOINTS, fit
from potstill.training.trainer import TeacherLike

KEY = "search.training"


def run(work: Work) -> Made:
    """Run the remaining trials, and write the best setting."""
    search, given = work.recipe.search, setting_of(work.recipe.distil.losses)
    assert search is not None
    assert given is not None
    file, count = work.folder / "trials.jsonl", trial_count(search, given)
    # Only the first rank reads earlier trials, proposes settings and writes results.
    journal = JsonlLog(file) if distributed.is_first() else None
    tried = journal.rows if journal is not None else []
    for row in tried:
        _remove_weights(_trial_work(work, row["number"]).folder)
    teachers = teachers_or_targets(work, work.recipe.tried_on)
    for number in range(distributed.broadcast(len(tried)), count):
        trial = _trial_work(work, number)
        setting = distributed.broadcast(
            _setting_of_trial(trial, number, tried, given) if distributed.is_first() else None
        )
        say(f"  trial {number} of {count - 1}: {setting}{'' if number else ', as given'}")
        began = time.monotonic()
        summary = _run_trial(trial, setting, teachers)
        if journal is not None:
            seconds = round(time.monotonic() - began, 1)
            journal.append([{"number": number, **asdict(setting), **summary, "seconds": seconds}])
            say(f"  trial {number}: {_outcome(tried[-1])}, in {duration(seconds)}")
            _remove_weights(trial.folder)
    return _write_best(work, tried) if distributed.is_first() else Made([], {})


def trial_count(search: Search, given: Setting) -> int:
    """The number of trials, including the one with the recipe's own setting."""
    proposed = search.trials if search.share else min(search.trials, len(_other_temperatures(search, given)))
    return 1 + proposed


def check(recipe: Recipe) -> None:
    """Refuse a search that cannot propose settings or cannot train.

    Raises:
        UserError: Optuna is not installed, or transformers refuses fields of `search.training`.
    """
    assert recipe.search is not None
    # Most of the fields are `distil.training`'s, and a message must name the key where the user gave them.
    check_students(recipe)
    check_training(_training(recipe), KEY, recipe.search.seed, "best")
    if recipe.search.share and importlib.util.find_spec("optuna") is None:
        raise UserError("`search` needs Optuna, which is not installed here: pip install 'potstill[search]'")


def _training(recipe: Recipe) -> dict[str, Any]:
    assert recipe.search is not None
    return training_fields(recipe, {**recipe.distil.training, **recipe.search.training})


def proposal(search: Search, number: int, tried: Sequence[dict[str, Any]], given: Setting) -> Setting:
    """The setting of a trial. It depends only on the search, the trial's number and the results of earlier trials.

    Shares are proposed by the tree-structured Parzen estimator (Bergstra et al., 2011, in Optuna's version). If only
    temperatures are searched, each temperature has one trial, in their order.
    """
    if search.share is None:
        return replace(given, temperature=_other_temperatures(search, given)[number - 1])
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    low, high = search.share
    space: dict[str, Any] = {"share": optuna.distributions.FloatDistribution(low, high)}
    if search.temperatures:
        space["temperature"] = optuna.distributions.CategoricalDistribution(search.temperatures)
    seed = int(np.random.SeedSequence((search.seed, number)).generate_state(1)[0])
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=seed))
    for row in tried:
        # The recipe's own setting may lie outside the search space.
        if low <= row["share"] <= high and row["temperature"] in (search.temperatures or [given.temperature]):
            params, loss = {name: row[name] for name in space}, row["validation_loss"]
            state = optuna.trial.TrialState.FAIL if loss is None else optuna.trial.TrialState.COMPLETE
            study.add_trial(optuna.trial.create_trial(state=state, params=params, distributions=space, value=loss))
    return replace(given, **study.ask(space).params)


def _other_temperatures(search: Search, given: Setting) -> list[float]:
    return [temperature for temperature in search.temperatures or [] if temperature != given.temperature]


def _trial_work(work: Work, number: int) -> Work:
    return replace(work, step=Step(work.step.stage, name=f"trial-{number}"))


def _setting_of_trial(trial: Work, number: int, tried: Sequence[dict[str, Any]], given: Setting) -> Setting:
    """The setting of a trial, saved before the trial begins.

    So a stopped trial continues with its own setting, even if another version of Optuna would propose another.
    """
    file, search = trial.folder / "setting.json", trial.recipe.search
    assert search is not None
    if (noted := read_sealed(file)) is None:
        noted = asdict(given if number == 0 else proposal(search, number, tried, given))
        trial.folder.mkdir(exist_ok=True)
        write_sealed(file, noted)
    return Setting(**noted)


def _run_trial(trial: Work, setting: Setting, teachers: list[TeacherLike]) -> dict[str, Any]:
    """Train with a setting. The validation loss is None if the training diverged."""
    try:
        summary = train_trial(trial, with_setting(trial.recipe.distil.losses, setting), teachers)
    except DivergedError as error:
        # Otherwise the other ranks would wait for this rank's gradients.
        if distributed.world_size() > 1:
            raise
        say(f"  {error}")
        return {"validation_loss": None, "tokens": 0}
    loss = summary.get("validation_loss")
    return {"validation_loss": loss if loss is not None and isfinite(loss) else None, "tokens": summary.get("tokens")}


def train_trial(trial: Work, losses: list[GivenLoss], teachers: list[TeacherLike]) -> dict[str, Any]:
    """Train a student for one trial, and return the summary of its training."""
    recipe, search = trial.recipe, trial.recipe.search
    assert search is not None
    data = training_data.for_student(trial, recipe.tried_on, search.seed)
    training = student_fit(trial, data, trainer_losses(recipe, losses), _training(recipe), KEY, search.seed)
    _, summary = fit(with_teachers(trial, replace(training, keep="best", snapshots=None), teachers))
    return summary


def _remove_weights(folder: Path) -> None:
    """Remove the weights of a finished trial. Its log stays."""
    for name in ("student", CHECKPOINTS):
        remove(folder / name)


def _write_best(work: Work, tried: Sequence[dict[str, Any]]) -> Made:
    """Write the best setting; among equals, the one that was tried first."""
    ended = sorted((row for row in tried if row["validation_loss"] is not None), key=lambda row: row["validation_loss"])
    if not ended:
        raise UserError(
            "`search`: the training of every trial diverged; lower "
            "`search.training.learning_rate`, or raise `warmup_steps`"
        )
    best, given = ended[0], tried[0]
    setting = Setting(best["share"], best["temperature"])
    # The ranking is no output: another ranking with the same best setting must not repeat the students' trainings.
    write_json(work.folder / "ranking.json", [*ended, *(row for row in tried if row["validation_loss"] is None)])
    write_json(work.folder / "best.json", asdict(setting))
    what = f"{setting} ({_outcome(best)}; as given: {_outcome(given)})" if best is not given else f"as given, {setting}"
    if all_tie(ended):
        what += "; the validation loss tells none of them apart"
    figures = {"trials": len(tried), "tokens": sum(row["tokens"] for row in tried), "best": best, "given": given}
    return Made([work.folder / "best.json"], figures | {"made": f"{len(tried)} trials; best: {what}"})


def all_tie(trials: Sequence[dict[str, Any]]) -> bool:
    """Whether the validation loss tells none of several trials apart; a trial that diverged is no part of it."""
    losses = [row["validation_loss"] for row in trials if row["validation_loss"] is not None]
    return len(losses) > 1 and len(set(losses)) == 1


def _outcome(row: dict[str, Any]) -> str:
    loss = row["validation_loss"]
    return "diverged" if loss is None else f"validation loss {loss:.4f}"
