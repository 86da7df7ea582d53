"""Serve: a teacher of this machine, for trainings on others; a model by its name, or a teacher that a run prepared."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from potstill.console import say
from potstill.device import accelerator_has_bfloat16, device_name
from potstill.errors import UserError
from potstill.pipeline.artifacts import teacher as teacher_of_run
from potstill.pipeline.cleaning import check_there
from potstill.pipeline.precision import with_precision
from potstill.pipeline.run_folder import Run
from potstill.pipeline.work import Work
from potstill.recipe.load import saved_recipe, section_of
from potstill.recipe.step import SAVED_AS, Step
from potstill.recipe.teachers import ModelTeacher
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import PreparedTeacher


@dataclass(frozen=True)
class Address:
    """Where a teacher is served."""

    host: str
    port: int
    key: str | None
    """The environment variable that holds the key; None: there is no key."""


def serve(teacher: str, name: str | None, settings: Sequence[str], address: Address, batch_tokens: int) -> None:
    """Serve a teacher until the person or the system ends it.

    Args:
        teacher: a name on the hub, a folder, or a run folder.
        name: the teacher of the run folder; None: the only one, or TEACHER is no run folder.
        settings: `key=value` as in a recipe's `teachers.NAME`.
        address: where.
        batch_tokens: the most tokens that the teacher reads at once.

    Raises:
        UserError: the teacher cannot be served, or not at this address.
    """
    try:
        from potstill.teachers.serving.server import application, check_host
        from potstill.teachers.serving.server import serve as serve_application
    except ImportError as error:
        raise UserError(
            "`potstill serve` needs aiohttp, which cannot be imported here: pip install 'potstill[serve]'"
        ) from error
    from potstill.teachers.serving.hosted_model import HostedModel

    key = _key(address.key)
    check_host(address.host, key)
    with _prepared(teacher, name, settings) as found:
        model = HostedModel.load(found, batch_tokens)
    facts = model.facts.teacher
    what = f"{facts.model} ({facts.vocabulary:,} tokens, {facts.hidden_size:,} hidden, {facts.dtype}, {device_name()})"

    def tell(url: str) -> None:
        say(f"serving {what} at {url} {'with' if key else 'without'} a key; Ctrl-C ends it")

    serve_application(application(model, key), address.host, address.port, tell)


def _key(variable: str | None) -> str | None:
    """The key that the environment holds.

    Raises:
        UserError: it holds none, or one that no request can carry.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if not key:
        raise UserError(f"`--key {variable}`: there is no such environment variable, or it is empty; set it to the key")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(
            f"`--key {variable}`: the key has characters that a request cannot carry; use letters and digits"
        )
    return key


@contextmanager
def _prepared(teacher: str, name: str | None, settings: Sequence[str]) -> Iterator[PreparedTeacher]:
    """The teacher, whose files are there until the end."""
    folder = Path(teacher)
    if (folder / SAVED_AS).is_file():
        if settings:
            raise UserError("`--set` is for a model by its name; a run's recipe says how its teachers are loaded")
        yield _of_run(folder, name)
        return
    if name is not None:
        raise UserError(f"`--teacher {name}` is for a run folder, and {teacher} is none; leave it out")
    section = section_of(ModelTeacher, [f"model={json.dumps(teacher)}", *settings], "--set")
    with TemporaryDirectory() as place:
        prepare("served", section, Path(place))
        yield PreparedTeacher.load(Path(place), teacher, "bf16" if accelerator_has_bfloat16() else "fp32")


def _of_run(folder: Path, name: str | None) -> PreparedTeacher:
    """A teacher that a run has prepared or trained."""
    run = Run(folder)
    recipe = with_precision(saved_recipe(folder), run)
    names = list(recipe.all_teachers)
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        raise UserError(f"name a teacher of {folder} with `--teacher`: {', '.join(names)}")
    step = Step("pretrain", name=name) if name in recipe.pretrain else Step("teachers")
    if run.manifest(step) is None:
        raise UserError(f"{folder} has no {name} yet, because `{step}` is not done; run `potstill {step.stage} RECIPE`")
    check_there(run, step)
    return teacher_of_run(Work(recipe, run, step), name)
