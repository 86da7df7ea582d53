"""Manifest: the file that says what a finished step was made from, at what cost, and the SHA-256 of each output."""

import os
import platform
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from potstill.files.atomic import read_json, sha256, write_json

MANIFEST = "manifest.json"
VERSIONS_OF = ("potstill", "torch", "transformers", "datasets", "accelerate", "tokenizers", "safetensors", "numpy")


def write_manifest(folder: Path, step: dict[str, Any], outputs: Iterable[Path]) -> None:
    """Write the manifest of a step.

    Args:
        folder: the step's folder.
        step: `step`, `key`, `inputs`, `started`, `attempts`, `cost`, `summary` and `recipe`.
        outputs: the files and folders that the step made.
    """
    made = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(file for path in outputs for file in _files(path))
    }
    manifest = {
        **{name: step[name] for name in ("step", "key", "inputs", "started")},
        "finished": now(),
        **{name: step[name] for name in ("attempts", "cost", "summary")},
        "outputs": made,
        "recipe": step["recipe"],
        "versions": versions(),
        "host": {"name": platform.node(), "system": platform.platform(), "cpus": os.cpu_count()},
    }
    write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished step; None if it is not finished, or if an output is missing or has another size."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        return None
    whole = all(_size(folder / name) == made["bytes"] for name, made in manifest["outputs"].items())
    return manifest if whole else None


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


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None
