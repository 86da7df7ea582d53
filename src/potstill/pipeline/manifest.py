"""Manifest: the file that says what a finished step was made from, at what cost, and the SHA-256 of each output."""

import os
import platform
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from potstill import distributed
from potstill.errors import UserError
from potstill.files.atomic import read_json, sha256, write_json
from potstill.files.sealed import read_sealed, unsealed, write_sealed

MANIFEST = "manifest.json"
VERSIONS_OF = ("potstill", "torch", "transformers", "datasets", "accelerate", "tokenizers", "safetensors", "numpy")


VERIFIED = "verified.json"
"""The size, modification time and inode that each output had when its digest was last compared with the manifest. An
output that still has them is not read again. The file may be missing: then every output is read."""

CLEANED = "cleaned.json"
"""The outputs that `potstill clean` removed, and their bytes. They are not missed."""

SETTLED_NS = 2 * 10**9
"""Nanoseconds. A file that changed within this time may change again without another modification time, because some
disks store this time in steps of two seconds. What was verified of such a file is not remembered."""


def write_manifest(folder: Path, step: dict[str, Any], outputs: Iterable[Path]) -> None:
    """Write the manifest of a step.

    Args:
        folder: the step's folder.
        step: `step`, `key`, `inputs`, `started`, `attempts`, `cost`, `summary`, `forecast`, `peak_memory` and `recipe`.
        outputs: the files and folders that the step made.
    """
    made, verified = {}, {}
    for file in sorted(file for path in outputs for file in _files(path)):
        name, state = str(file.relative_to(folder)), _state(file)
        assert state is not None, f"{file} vanished"
        made[name] = {"bytes": state["bytes"], "sha256": sha256(file)}
        if _is_settled(file, state):
            verified[name] = state | made[name]
    manifest = {
        **{name: step[name] for name in ("step", "key", "inputs", "started")},
        "finished": now(),
        **{name: step[name] for name in ("attempts", "cost", "summary", "forecast", "peak_memory")},
        "outputs": made,
        "recipe": step["recipe"],
        "versions": versions(),
        "host": {"name": platform.node(), "system": platform.platform(), "cpus": os.cpu_count()},
    }
    write_sealed(folder / MANIFEST, manifest)
    _remember(folder, verified)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished step; None if it is not finished, or if an output is missing or damaged.

    Raises:
        UserError: the manifest itself is damaged.
    """
    manifest = stored_manifest(folder)
    return None if manifest is None or damaged_outputs(folder, manifest) else manifest


def stored_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a step, whatever has become of its outputs; None if there is none.

    Raises:
        UserError: the manifest itself is damaged.
    """
    manifest = unsealed(read_json(folder / MANIFEST))
    if manifest is None and (folder / MANIFEST).exists():
        raise UserError(
            f"{folder / MANIFEST} is damaged, or an older potstill wrote it; remove it and run the same command again"
        )
    return manifest


def damaged_outputs(folder: Path, manifest: dict[str, Any], *, afresh: bool = False) -> dict[str, str]:
    """What is wrong with the outputs of a step, a word for each damaged file: `missing`, `damaged` or `unreadable`.

    Args:
        folder: the step's folder.
        manifest: its manifest.
        afresh: read every output again, even one that did not change since it was last verified.
    """
    remembered, cleaned = _remembered(folder), cleaned_outputs(folder)
    wrong, verified = {}, {}
    for name, made in manifest["outputs"].items():
        state = _state(folder / name)
        if state is None and name in cleaned:
            continue
        if not afresh and state is not None and remembered.get(name) == state | made:
            verified[name] = remembered[name]
            continue
        word = _fault(folder / name, made)
        if word is not None:
            wrong[name] = word
        elif state is not None and _is_settled(folder / name, state):
            verified[name] = state | made
    if verified != remembered:
        _remember(folder, verified)
    return wrong


def cleaned_outputs(folder: Path) -> dict[str, int]:
    """The bytes of each output of a step that `potstill clean` removed, by its name."""
    noted = read_sealed(folder / CLEANED, "the files that it names count as missing") or {}
    return {name: size for name, size in noted.get("files", {}).items() if not (folder / name).exists()}


def remember_cleaned(folder: Path, files: Mapping[str, int]) -> None:
    """Note that these outputs are removed on purpose. Call it before they are."""
    write_sealed(folder / CLEANED, {"files": cleaned_outputs(folder) | dict(files), "when": now()})


def _fault(file: Path, made: dict[str, Any]) -> str | None:
    try:
        if not file.is_file():
            return "missing"
        whole = file.stat().st_size == made["bytes"] and sha256(file) == made["sha256"]
    except (OSError, ValueError):
        return "unreadable"
    return None if whole else "damaged"


def _state(file: Path) -> dict[str, Any] | None:
    """The size, modification time and inode of a file; None if there is no such file."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns, "inode": found.st_ino}


def _is_settled(file: Path, before: dict[str, Any]) -> bool:
    """Whether a file did not change while it was read, and not shortly before."""
    return _state(file) == before and time.time_ns() - before["mtime_ns"] > SETTLED_NS


def _remembered(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / VERIFIED)
    except (UserError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(folder: Path, verified: dict[str, Any]) -> None:
    if not distributed.is_first():
        return
    # A run folder that cannot be written can be read all the same.
    with suppress(OSError):
        write_json(folder / VERIFIED, verified)


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _files(output: Path) -> list[Path]:
    assert output.exists(), f"a stage returned the output {output}, which does not exist"
    return [output] if output.is_file() else [file for file in output.rglob("*") if file.is_file()]
