"""Runs that have much in common: what one has made already, another need not make again."""

import os
import shutil
from pathlib import Path

from potstill.pipeline.run_folder import Run


def beside(base: Run, folder: Path, own: tuple[str, ...]) -> Run:
    """A run that begins with what the base has made, as links and not as copies.

    Args:
        base: a finished run.
        folder: of the new one; one that exists stays as it is.
        own: names of folders of the base that the new run makes for itself.
    """
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        without = shutil.ignore_patterns(*own, "replaced")
        shutil.copytree(base.folder, partial, copy_function=os.link, ignore=without, symlinks=True)
        partial.rename(folder)
    return Run(folder)
