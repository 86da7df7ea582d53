"""Named data: public data sets by a short name, found on this machine or fetched once from the Hugging Face hub.

`named_data.yaml` is the table. A data set is looked for in the folder that `$POTSTILL_DATA` names, then in the hub's
cache; if it is in neither, it is downloaded into the hub's cache, at the revision of the table.
"""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from potstill.errors import UserError, first_line
from potstill.files.atomic import sha256
from potstill.files.named_files import named_path

TABLE = Path(__file__).with_suffix(".yaml")
VARIABLE = "POTSTILL_DATA"


@dataclass(frozen=True)
class HubHome:
    """The repository of a data set on the hub."""

    repository: str
    kind: Literal["dataset", "model"]
    revision: str


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split, as names or patterns below a folder: as people keep them, and as the hub has them."""

    local: Sequence[str] = ()
    hub: Sequence[str] = ()
    count: int | None = None
    """The number of files, where a pattern stands for them: a part of the data must not pass for the whole."""

    def check_choice(self, only: Sequence[str]) -> None:
        """Refuse patterns that choose nothing.

        Raises:
            UserError: the files are called otherwise in other places, or a pattern fits none of them.
        """
        every = [Path(name).name for name in self.local]
        if self.hub or self.count is not None:
            raise UserError("only whole splits of this data can be named; remove it")
        if any(not any(fnmatchcase(name, one) for name in every) for one in only):
            raise UserError(f"there is no such file; the files are {', '.join(every)}")


@dataclass(frozen=True)
class NamedData:
    """An entry of the table."""

    name: str
    about: str
    licence: str
    home: str
    """Where the data comes from, in words."""
    folder: str
    """The data's folder in `$POTSTILL_DATA`."""
    splits: dict[str, SplitFiles]
    hub: HubHome | None = None
    """None: it cannot be fetched."""
    sha256: dict[str, str] = field(default_factory=dict)
    """The checksums of files, by their names below the folder."""

    def files(self, split: str, only: Sequence[str] | None, key: str) -> list[Path]:
        """The files of a split; see :func:`named_files`."""
        found = self.on_this_machine(split, only)
        if found is None:
            found = self._fetch(split, only, key)
        for file, name in found:
            if self.is_another_file(file, name):
                raise UserError(
                    f"`{key}`: {file} is not the file that the name {self.name} stands for (its SHA-256 is another); "
                    "replace it, or name your own file by `path`"
                )
        return [file for file, _ in found]

    def on_this_machine(self, split: str, only: Sequence[str] | None = None) -> list[tuple[Path, str]] | None:
        """The files of a split and their names in the table, without a download; None if one is missing."""
        if (own := self.own_folder()) is not None and (found := self._all_in(own, split, only)) is not None:
            return found
        cached = None if self.hub is None else self._snapshot(split, local_files_only=True)
        return None if cached is None else self._all_in(cached, split, only)

    def _all_in(self, place: Path, split: str, only: Sequence[str] | None) -> list[tuple[Path, str]] | None:
        files = self.splits[split]
        for names in (files.local, files.hub):
            found = _all_of(place, _chosen(names, only))
            if found is not None and files.count in (None, len(found)):
                return found
        return None

    def own_files(self, split: str) -> list[tuple[Path, str]]:
        """Those of a split's files that `$POTSTILL_DATA` has, and their names in the table; perhaps only some."""
        own, files = self.own_folder(), self.splits[split]
        found = [] if own is None else [_all_of(own, [name]) or [] for name in files.local or files.hub]
        return [one for files_of_name in found for one in files_of_name]

    def file_count(self, split: str) -> int:
        """How many files a split has."""
        files = self.splits[split]
        return files.count or len(files.local or files.hub)

    def is_another_file(self, file: Path, name: str) -> bool:
        """Whether a file differs from the published one. No file without a checksum in the table does.

        Args:
            file: a file of this machine, which is read as a whole.
            name: its name in the table.
        """
        status = file.stat()
        return name in self.sha256 and _sha256(file, status.st_size, status.st_mtime_ns) != self.sha256[name]

    def own_folder(self) -> Path | None:
        """The data's folder in `$POTSTILL_DATA`; None if the variable is not set."""
        root = os.environ.get(VARIABLE)
        return named_path(root) / self.folder if root else None

    def _fetch(self, split: str, only: Sequence[str] | None, key: str) -> list[tuple[Path, str]]:
        where = self.own_folder() or Path(f"${VARIABLE}") / self.folder
        files = self.splits[split]
        wanted = ", ".join(_chosen(files.local or files.hub, only))
        wanted = wanted if files.count is None else f"all {files.count} files {wanted}"
        advice = f"put {wanted} into {where}; its home is {self.home}"
        if self.hub is None:
            raise UserError(f"`{key}`: {self.name} is not on this machine and cannot be fetched; {advice}")
        try:
            place = self._snapshot(split, local_files_only=False)
        except Exception as error:  # whatever a network and its libraries raise
            raise UserError(
                f"`{key}`: {self.name} is not on this machine, and the hub does not give it ({first_line(error)}); "
                f"{advice}"
            ) from error
        found = None if place is None else self._all_in(place, split, only)
        if found is None:
            raise UserError(f"`{key}`: {self.hub.repository} on the hub does not have what it had; {advice}")
        return found

    def _snapshot(self, split: str, *, local_files_only: bool) -> Path | None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        assert self.hub is not None
        try:
            return Path(
                snapshot_download(
                    self.hub.repository,
                    repo_type=self.hub.kind,
                    revision=self.hub.revision,
                    allow_patterns=list(self.splits[split].hub),
                    local_files_only=local_files_only,
                )
            )
        except LocalEntryNotFoundError:
            if local_files_only:
                return None
            raise


@cache
def all_named_data() -> dict[str, NamedData]:
    """All entries, by name."""
    return {name: _entry(name, **fields) for name, fields in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items()}


def named_data(name: str) -> NamedData:
    """The entry of a name.

    Raises:
        UserError: there is none; names a similar one, or all.
    """
    known = all_named_data()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the names are {', '.join(known)}"
    raise UserError(f"no data has the name {name!r}; {hint}")


def named_files(name: str, split: str, key: str, only: Sequence[str] | None = None) -> list[Path]:
    """The files of a split of named data, in the order of the table. They are fetched if they are not here.

    Args:
        name: the data's name in the table.
        split: the split's name.
        key: the recipe key that named it, for messages.
        only: patterns of file names, if not all files are wanted.

    Raises:
        UserError: it is not on this machine and cannot be fetched; or a file is not the one that the table means.
    """
    return named_data(name).files(split, only, key)


def _entry(name: str, *, splits: dict[str, Any], hub: dict[str, Any] | None = None, **fields: Any) -> NamedData:
    known = {split: SplitFiles(**files) for split, files in splits.items()}
    return NamedData(name, splits=known, hub=HubHome(**hub) if hub else None, **fields)


def _chosen(names: Sequence[str], only: Sequence[str] | None) -> list[str]:
    if only is None:
        return list(names)
    return [name for name in names if any(fnmatchcase(Path(name).name, pattern) for pattern in only)]


def _all_of(folder: Path, names: Sequence[str]) -> list[tuple[Path, str]] | None:
    """The files of all names and patterns; None if one of them has no file, or if there are no names."""
    found: list[tuple[Path, str]] = []
    for name in names:
        files = sorted(folder.glob(name)) if "*" in name else [folder / name]
        files = [file for file in files if file.is_file()]
        if not files:
            return None
        found += [(file, file.relative_to(folder).as_posix()) for file in files]
    return found or None


@cache
def _sha256(file: Path, size: int, modified: int) -> str:
    # Size and time are part of the key, so that a file that has changed is read again.
    return sha256(file)
