"""Clean: remove what of a run can be made again, after a question."""

import sys
from pathlib import Path

from potstill.console import size, table
from potstill.errors import UserError
from potstill.pipeline.cleaning import Offer, clean, offers
from potstill.pipeline.run_folder import Run
from potstill.recipe.load import saved_recipe


def clean_run(folder: Path, *, yes: bool) -> str:
    """Show what can be removed and what it costs to make it again, ask, and remove it.

    Args:
        folder: the run folder.
        yes: do not ask.

    Returns:
        What happened, in one line.

    Raises:
        UserError: the folder is no run, another process is at work in it, or nobody can answer.
    """
    recipe, run = saved_recipe(folder), Run(folder)
    with run.alone():
        found = offers(recipe, run)
        if not found:
            return f"{folder} has nothing that can be removed and made again"
        print(_table(found), flush=True)
        if not yes and not _agreed():
            return "nothing was removed"
        clean(run, found)
    return f"{size(sum(one.bytes for one in found))} removed; the student, the figures and the logs stay"


def _table(found: list[Offer]) -> str:
    rows = [(one.where, one.what, f"{len(one.files):,}", size(one.bytes), one.again) for one in found]
    total = ("in all", "", "", size(sum(one.bytes for one in found)), "")
    return table([("where", "what", "files", "size", "to make it again"), *rows, total])


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise UserError("`potstill clean` asks before it removes anything, and nobody can answer here; add `--yes`")
    try:
        return input("Remove all of this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
