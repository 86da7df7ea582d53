"""Load tasks of lm-evaluation-harness, with their data, by name or from task files."""

import difflib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from potstill.data.literal_data_files import names_that_exist_are_names
from potstill.errors import UserError, first_line
from potstill.files.named_files import named_path

INSTALL = "pip install 'potstill[tasks]'"
NEAR = 3
"""The number of names that are suggested for a name that does not exist."""


@dataclass(frozen=True)
class LoadedTask:
    """One task or group of tasks, ready to be asked.

    Attributes:
        name: its name in lm-eval, or in its file.
        loaded: lm-eval's own objects: ``tasks`` and ``groups`` by name, with their data.
        num_fewshot: the number of solved examples before each item; None: the task's own number.
        limit: the number of items of each task, from the first; None: all.
    """

    name: str
    loaded: Mapping[str, Any]
    num_fewshot: int | None = None
    limit: int | None = None

    @property
    def shown(self) -> list[str]:
        """The names that have figures: the group, if lm-eval computes a figure for it, or else each of its tasks."""
        group = self.loaded["groups"].get(self.name)
        return [self.name] if group is not None and group.has_aggregation else list(self.loaded["tasks"])


def load_task(
    name: str, key: str, *, path: str | None = None, num_fewshot: int | None = None, limit: int | None = None
) -> LoadedTask:
    """Find a task or a group of tasks and read its data, from the hub if it is there.

    Args:
        name: its name in lm-eval, or in a task file.
        key: the recipe key that named it, for messages.
        path: a folder of task files (`.yaml`), in addition to lm-eval's own.
        num_fewshot: the number of solved examples before each item. If a task's own file says 0, lm-eval keeps 0.
        limit: the number of items of each task, from the first.

    Raises:
        UserError: lm-eval is not installed; there is no such task; its file is not valid; its data cannot be read; it
            shows pictures or sound; or it runs code that a model writes.
    """
    if find_spec("lm_eval") is None:
        raise UserError(f"`{key}`: tasks need lm-evaluation-harness; `{INSTALL}` installs it")
    folder = None if path is None else _task_folder(path, key)
    with quiet():
        manager = _knowing(name, folder)
        if name not in manager.task_index:
            raise UserError(f"`{key}`: {_unknown(name, manager, folder)}")
        try:
            with names_that_exist_are_names():
                loaded = manager.load(name)
            # Some tasks read or reject their data only at the first access.
            sizes = {task: len(one.eval_docs) for task, one in loaded["tasks"].items()}
        except Exception as error:  # task files run any code, and the data's libraries raise anything
            raise UserError(f"`{key}`: {_not_loaded(name, manager, error)}") from error
    for task, one in loaded["tasks"].items():
        if getattr(one, "UNSAFE_CODE", False):
            raise UserError(
                f"`{key}`: task {task!r} runs the code that a model writes, which is not safe; remove the task"
            )
        if getattr(one, "MULTIMODAL", False):
            raise UserError(
                f"`{key}`: task {task!r} shows pictures or sound, and models here read only text; remove the task"
            )
        if min(sizes[task], limit or sizes[task]) < 2:
            raise UserError(f"`{key}`: task {task!r} has {sizes[task]} item(s), and an interval needs at least 2")
    return LoadedTask(name, loaded, num_fewshot, limit)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress lm-eval's log and its output to stdout, which belongs to potstill."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logger.setLevel(before)


def _knowing(name: str, folder: str | None) -> Any:
    """An index with the task, if there is one. lm-eval's own index has more than ten thousand tasks and takes seconds
    to read. It is read only if the folder's index is not enough: a group there may have members that are lm-eval's."""
    if folder is not None:
        own = _manager(folder, False)
        if name in own.all_subtasks or name in own.all_tags:
            return own
    return _manager(folder, True)


@cache
def _manager(folder: str | None, with_lm_evals: bool) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder, include_defaults=with_lm_evals)


def _task_folder(path: str, key: str) -> str:
    folder = named_path(path)
    if not folder.is_dir():
        raise UserError(
            f"`{key}.path`: there is no folder {path!r} (seen from {Path.cwd()}); name a folder of task files"
        )
    return str(folder.resolve())


def _unknown(name: str, manager: Any, folder: str | None) -> str:
    """Why a task was not found: its file is not valid, or the name is wrong."""
    if folder is not None:
        for file in sorted(Path(folder).rglob("*.yaml")):
            if broken := _broken(file):
                return f"task file {file} is not valid: {broken}"
    here = [
        task
        for task, entry in manager.task_index.items()
        if folder and entry.yaml_path and Path(folder) in Path(entry.yaml_path).parents
    ]
    near = difflib.get_close_matches(name, [*here, *manager.all_tasks], n=NEAR)
    near = list(dict.fromkeys(near)) or here[:NEAR]
    where = f" in lm-eval or in {folder}" if folder else " in lm-eval"
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`lm-eval ls tasks` lists them"
    return f"there is no task {name!r}{where}; {hint}"


def _broken(file: Path) -> str | None:
    """Why lm-eval skips a file; None if it does not."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        load_yaml(file, resolve_func=False)
    except (OSError, ValueError, yaml.YAMLError) as error:
        return " ".join(str(error).split())
    return None


def _not_loaded(name: str, manager: Any, error: Exception) -> str:
    from datasets.exceptions import DatasetsError

    file, reason = manager.task_index[name].yaml_path, first_line(error)
    if isinstance(error, OSError | DatasetsError):
        return f"the data of task {name!r} cannot be read ({reason}); go online once, or correct the data set in {file}"
    return f"task {name!r} is not valid ({type(error).__name__}: {reason}); correct its file, {file}"
