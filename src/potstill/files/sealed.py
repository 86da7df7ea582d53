"""Sealed files: what a stopped step leaves to its next attempt, with digests that show damage.

The outputs of a finished step have their digests in its manifest. Until then, a JSON file holds a digest of itself, and
a folder holds the digests of its files.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.console import say
from potstill.errors import UserError
from potstill.files.atomic import digest, read_json, sha256, write_json

DIGEST = "digest"
"""The key of a sealed value's digest."""

HASHES = "hashes.json"
"""The SHA-256 of every other file of a folder, by name. It is written last: a folder with it was finished."""


def write_sealed(file: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with a digest of itself, whole or not at all."""
    # JSON turns tuples into lists and numbered keys into strings. The digest is that of the value that comes back.
    plain = json.loads(json.dumps(value))
    write_json(file, plain | {DIGEST: digest(plain)})


def read_sealed(file: Path, otherwise: str = "it is made again") -> dict[str, Any] | None:
    """A sealed object. None if there is none; or if it is damaged, which is said.

    Args:
        file: the file.
        otherwise: what the caller does where it is damaged.
    """
    value = _whole(file)
    if value is None and file.exists():
        say(f"  {file} is not as it was written, so {otherwise}")
    return value


def _whole(file: Path) -> dict[str, Any] | None:
    try:
        return unsealed(read_json(file))
    except (UserError, OSError):
        return None


def unsealed(found: Any) -> dict[str, Any] | None:
    """The content of a sealed file without its digest; None if it is not as it was written."""
    if not isinstance(found, dict):
        return None
    value = {name: part for name, part in found.items() if name != DIGEST}
    return value if found.get(DIGEST) == digest(value) else None


def write_hashes(folder: Path) -> None:
    """Write the SHA-256 of every file of a folder, beside them. Call it when every file is whole."""
    write_sealed(folder / HASHES, {"files": file_hashes(folder, folder)})


def damage(folder: Path) -> str | None:
    """What is wrong with a folder, as a clause that names the file; None if every file is as it was written."""
    if not (folder / HASHES).exists():
        return f"it has no {HASHES}, because it was not written to its end or an older potstill wrote it"
    hashes = _whole(folder / HASHES)
    return f"its {HASHES} is damaged" if hashes is None else changed_file(folder, hashes["files"])


def file_hashes(folder: Path, *paths: Path) -> dict[str, str]:
    """The SHA-256 of files, and of all files in folders, by their paths within `folder`."""
    every = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    # A name with a dot is a file that is not whole yet.
    files = sorted(file for file in every if not file.name.startswith(".") and file != folder / HASHES)
    return {str(file.relative_to(folder)): sha256(file) for file in files}


def changed_file(folder: Path, hashes: Mapping[str, str]) -> str | None:
    """What is wrong with the first file that is not as it was hashed, as a clause; None if all are."""
    for name, written in hashes.items():
        try:
            if sha256(folder / name) != written:
                return f"its file {name} is not as it was written"
        except FileNotFoundError:
            return f"its file {name} is missing"
        except (OSError, ValueError):
            return f"its file {name} cannot be read"
    return None
