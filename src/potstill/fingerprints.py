"""Fingerprints of the files that a recipe names, cheap enough to be taken each time a run is asked for."""

from collections.abc import Sequence
from pathlib import Path

from potstill.files import sha256
from potstill.packages import package_files
from potstill.recipe import Recipe
from potstill.recipe.corpus import HubSource, PackageSource, Source
from potstill.recipe.teachers import PackagedTeacher, Teacher
from potstill.text.files import path_files

HASHED_UP_TO = 256 * 2**20
"""Bytes. A larger file is told from another by its size and time of change: hashing it would take seconds each time."""


def source_files(recipe: Recipe) -> dict[str, str]:
    """The fingerprint of every file that `corpus.sources` names.

    Raises:
        UserError: a package or a file is missing.
    """
    found: dict[str, str] = {}
    for index, source in enumerate(recipe.corpus.sources):
        key = f"corpus.sources.{index}"
        found |= _fingerprints(key, _source_files(source, key))
    return found


def teacher_files(recipe: Recipe) -> dict[str, str]:
    """The fingerprint of every file that `teachers` names on this machine.

    Raises:
        UserError: a package or a file is missing.
    """
    found: dict[str, str] = {}
    for name, teacher in recipe.teachers.items():
        key = f"teachers.{name}"
        found |= _fingerprints(key, _teacher_files(teacher, key))
    return found


def _source_files(source: Source, key: str) -> Sequence[Path]:
    if isinstance(source, PackageSource):
        return package_files(source.package, source.file, key, "file")
    if isinstance(source, HubSource):
        folder = Path(source.dataset)
        return sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    return path_files(source.path, f"{key}.path")


def _teacher_files(teacher: Teacher, key: str) -> Sequence[Path]:
    if isinstance(teacher, PackagedTeacher):
        return package_files(teacher.package, teacher.gguf, key, "gguf")[:1]
    folder = Path(teacher.model).expanduser()
    if not folder.is_dir():
        return []
    if teacher.gguf:
        return [file for file in (folder / teacher.gguf,) if file.is_file()]
    return sorted(file for file in folder.iterdir() if file.is_file())


def _fingerprints(key: str, files: Sequence[Path]) -> dict[str, str]:
    """By the shortest names that tell the files apart: where a package or a folder lies is nothing of theirs."""
    parts = 1
    while len({file.parts[-parts:] for file in files}) < len(files):
        parts += 1
    return {f"{key}: {Path(*file.parts[-parts:])}": fingerprint(file) for file in files}


def fingerprint(file: Path) -> str:
    """What tells a file from another: its content, or, where it is large, its size and time of change."""
    status = file.stat()
    return sha256(file) if status.st_size <= HASHED_UP_TO else f"{status.st_size} bytes, {status.st_mtime_ns}"
