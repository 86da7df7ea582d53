"""Licences: what is known of the licences of a student's teachers and training data, and what they ask of the student.

A licence is read where its owner states it: in the table of named data, in the metadata of a GGUF file, or in the card
of a model or data set (`license:`). Where none is stated, it is unknown. Nothing here is legal advice.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.files.installed_packages import package_files
from potstill.files.named_data import named_data
from potstill.files.named_files import named_folder
from potstill.recipe import Recipe
from potstill.recipe.corpus import HubDataset, NamedFiles, PackageFiles, PathFiles
from potstill.recipe.student import Checkpoint
from potstill.recipe.teachers import ModelTeacher, NamedTeacher, PackagedTeacher, ServerTeacher

UNKNOWN = "unknown"
"""The hub's own identifier of a licence that nobody has stated."""

SECONDS_FOR_HUB = 5.0
"""The longest time that the hub may take to say a licence."""

PERMISSIVE = re.compile(r"(apache-2\.0|mit|bsd(-[23]-clause)?|isc|unlicense|cc0-1\.0|cc-by-[234]\.[05]|odc-by|pddl)")
"""Licences that ask for a notice at most."""

CONDITIONS: Mapping[str, str] = {
    r"\bllama[- ]?2\b": "forbids to improve other language models with its outputs; its terms go along",
    r"\bllama[- ]?3\b(?!\.)": "forbids to improve other language models with its outputs, and wants a name that begins "
    "with “Llama 3”; its terms go along",
    r"\bllama[- ]?(3\.\d|4)": "wants a name that begins with “Llama”, and the line “Built with Llama”",
    r"\bgemma\b": "counts a student of Gemma as Gemma: its terms and its list of forbidden uses go along",
    r"\b(nc|non-?commercial|research)\b": "forbids commercial use",
    r"\bnd\b": "forbids to share what is made from it",
    r"\b(sa|[al]?gpl)\b": "wants what is made from it to have the same licence",
    r"\b(open)?rail\b|\bopenrail": "wants its restrictions of use to go along",
}
"""By a pattern of the licence, what it asks beyond a notice."""


@dataclass(frozen=True)
class StatedLicence:
    """The licence of a teacher, of training data, or of the checkpoint that a student started from."""

    of: str
    """Whose licence it is: `teacher smollm2`, `data gsm8k`."""
    kind: str
    """`model` or `dataset`."""
    licence: str
    """As its owner states it; `unknown` if no statement was found."""
    stated_in: str
    """Where it was read, or what a reader should check."""
    repository: str | None = None
    """The name of the model or data set on the hub."""

    @property
    def conditions(self) -> list[str]:
        """What the licence asks beyond a notice."""
        return [what for pattern, what in CONDITIONS.items() if re.search(pattern, self.licence, re.IGNORECASE)]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"conditions": self.conditions}


def licences(recipe: Recipe) -> list[StatedLicence]:
    """The licences of all teachers, of the checkpoint that the student starts from, and of the training data."""
    return [*_of_teachers(recipe), *_of_start(recipe), *_of_data(recipe)]


def licence_of_student(stated: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the licences of its makers leave for a student, as metadata of the hub.

    It is `unknown` as long as one of them is. A licence with conditions is passed on, and licences with several
    conditions together are `other`.
    """
    found = {_identifier(one["licence"]) for one in stated}
    models = [_identifier(one["licence"]) for one in stated if one["kind"] == "model"]
    bound = {_identifier(one["licence"]) for one in stated if one["conditions"]}
    if UNKNOWN in found or not found:
        return {"license": UNKNOWN}
    free = [one for one in found - bound if not PERMISSIVE.fullmatch(one)]
    if len(bound) == 1 and not free and (only := bound.copy().pop()) in _HUB_IDENTIFIERS:
        return {"license": only}
    if bound or free:
        return {"license": "other", "license_name": "inherited", "license_link": "README.md"}
    return {"license": models[0] if models else sorted(found)[0]}


_HUB_IDENTIFIERS = {
    *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "gemma"),
    *(f"cc-by{kind}-{version}" for kind in ("-nc", "-nd", "-sa", "-nc-sa", "-nc-nd") for version in ("3.0", "4.0")),
    *("gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "openrail", "bigscience-openrail-m", "bigcode-openrail-m"),
}
"""Licences with conditions that the hub knows by name."""


def _identifier(licence: str) -> str:
    return licence.strip().lower().replace(" ", "-")


def _of_teachers(recipe: Recipe) -> Iterator[StatedLicence]:
    for name, teacher in recipe.teachers.items():
        of = f"teacher {name}"
        if isinstance(teacher, ModelTeacher):
            yield _of_repository(of, "model", teacher.model, teacher.revision)
        elif isinstance(teacher, NamedTeacher):
            yield _of_named(of, "model", teacher.data)
        elif isinstance(teacher, PackagedTeacher):
            yield _of_package(of, teacher)
        elif isinstance(teacher, ServerTeacher):
            yield StatedLicence(of, "model", UNKNOWN, "check the terms of the server’s operator and of its model")
        else:
            yield StatedLicence(of, "model", UNKNOWN, "check where its files come from")


def _of_start(recipe: Recipe) -> Iterator[StatedLicence]:
    if isinstance(recipe.student, Checkpoint):
        yield _of_repository("the student’s start", "model", recipe.student.model, recipe.student.revision)


def _of_data(recipe: Recipe) -> Iterator[StatedLicence]:
    found = dict[str, StatedLicence]()
    for section in ("sources", "questions", "conversations"):
        for source in getattr(recipe.corpus, section, None) or ():
            if (one := _of_source(source)) is not None:
                found.setdefault(one.of, one)
    yield from found.values()


def _of_source(source: Any) -> StatedLicence | None:
    """The licence of a source of the corpus; None for questions that the run makes by itself."""
    if isinstance(source, NamedFiles):
        return _of_named(f"data {source.data}", "dataset", source.data)
    if isinstance(source, HubDataset):
        return _of_repository(f"data {source.dataset}", "dataset", source.dataset, source.revision)
    if isinstance(source, PackageFiles):
        where = f"check where the texts in the package {source.package} come from"
        return StatedLicence(f"data {source.package}/{source.file}", "dataset", UNKNOWN, where)
    if isinstance(source, PathFiles):
        return StatedLicence(f"data {Path(source.path).name}", "dataset", UNKNOWN, "check where these files come from")
    return None


def _of_named(of: str, kind: str, name: str) -> StatedLicence:
    data = named_data(name)
    repository = data.hub.repository if data.hub is not None and data.hub.kind == kind else None
    return StatedLicence(of, kind, data.licence, "potstill’s table of public data", repository)


def _of_package(of: str, teacher: PackagedTeacher) -> StatedLicence:
    # transformers, which takes seconds, is only imported where a GGUF file is read: `potstill push` reads none.
    from potstill.teachers.gguf import facts_in_header

    try:
        (file, *_) = package_files(teacher.package, teacher.gguf, "teachers", "gguf")
    except UserError:
        file = None
    stated = facts_in_header(file).get("general.license") if file is not None else None
    if isinstance(stated, str) and stated.strip():
        return StatedLicence(of, "model", stated.strip(), f"the metadata of {teacher.gguf}")
    return StatedLicence(
        of, "model", UNKNOWN, f"check where {teacher.gguf} of the package {teacher.package} comes from"
    )


def _of_repository(of: str, kind: str, name: str, revision: str | None) -> StatedLicence:
    """The licence in the card of a folder, or of a model or data set on the hub."""
    folder = named_folder(name)
    if folder is not None:
        stated = _in_card(folder / "README.md")
        where = "its README.md" if stated else "check where this folder comes from"
        return StatedLicence(of, kind, stated or UNKNOWN, where)
    stated = _on_hub(name, kind, revision)
    where = f"the card of {name} on the hub" if stated else f"check the card of {name} on the hub"
    return StatedLicence(of, kind, stated or UNKNOWN, where, name)


def _on_hub(name: str, kind: str, revision: str | None) -> str | None:
    from huggingface_hub import HfApi

    try:
        # Without the retries of a download: a report is also made where there is no network.
        found: Any = HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=SECONDS_FOR_HUB)
    except Exception:  # noqa: BLE001 (whatever a network and its libraries raise: then the licence is unknown)
        return None
    return _stated(found.card_data)


def _in_card(file: Path) -> str | None:
    """The licence that the card of a folder states; None if there is no card, or it states none."""
    from huggingface_hub import ModelCard

    try:
        return _stated(ModelCard.load(file, ignore_metadata_errors=True).data)
    except Exception:  # noqa: BLE001 (a card is written by people, and may be anything)
        return None


def _stated(metadata: Any) -> str | None:
    stated = metadata.get("license") if metadata is not None else None
    if stated == "other":
        stated = metadata.get("license_name") or stated
    if isinstance(stated, list):
        stated = " and ".join(map(str, stated))
    return str(stated) if stated and str(stated) != UNKNOWN else None
