"""Runs that share finished stages with another run."""

import os
import shutil
from pathlib import Path

from potstill.pipeline.run_folder import Run


def beside(base: Run, folder: Path, own: tuple[str, ...]) -> Run:
    """A new run that begins with the base's finished stages, as hard links.

    Args:
        base: a finished run.
        folder: the new run's; if it exists, it stays as it is.
        own: names of folders of the base that the new run makes for itself.
    """
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        without = shutil.ignore_patterns(*own, "replaced")
        shutil.copytree(base.folder, partial, copy_function=os.link, ignore=without, symlinks=True)
        partial.rename(folder)
    return Run(folder)
