"""Push: upload a student of a run to the hub, or say what would be uploaded."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.errors import UserError
from potstill.export.hub import push, upload_of
from potstill.pipeline.run_folder import Run
from potstill.recipe.load import saved_recipe

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""How the hub writes licences."""


@dataclass(frozen=True)
class Sharing:
    """What a person says about an upload."""

    repository: str
    private: bool = False
    dry_run: bool = False
    experiment: str | None = None
    exports: Sequence[str] = ()
    licence: str | None = None


def push_run(folder: Path, sharing: Sharing) -> str:
    """Upload the student of a run with its card; with `dry_run`, only list the files.

    Returns:
        The address, or the list.

    Raises:
        UserError: as :func:`upload_of` and :func:`push`; or an option has no meaning.
    """
    if not REPOSITORY.fullmatch(sharing.repository):
        raise UserError(f"`--to {sharing.repository}` is no name on the hub; give one such as user/name")
    if sharing.licence is not None and not LICENCE.fullmatch(sharing.licence):
        raise UserError(f"`--licence {sharing.licence}` is no licence of the hub; give one such as apache-2.0")
    saved_recipe(folder)
    upload = upload_of(Run(folder), sharing.repository, sharing.experiment, sharing.exports, sharing.licence)
    for warning in upload.warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    if sharing.dry_run:
        return "\n".join(upload.lines())
    return f"{push(upload, sharing.repository, private=sharing.private)} is there"
