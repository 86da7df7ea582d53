"""Fingerprints of the files that a recipe names. They are cheap enough to be computed at every start of a run."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from potstill.data.sources import files_of
from potstill.errors import UserError
from potstill.files.atomic import sha256
from potstill.files.installed_packages import package_files
from potstill.files.named_data import named_files
from potstill.files.named_files import named_folder, named_path
from potstill.metrics.continuations.read import continuations_file
from potstill.metrics.continuations.similarity import sentence_model
from potstill.metrics.continuations.word_vectors import vectors_file
from potstill.metrics.minimal_pairs.read import pair_files
from potstill.pipeline.run_folder import Run
from potstill.recipe import Recipe
from potstill.recipe.continuations import ContinuationFile, ContinuationSet
from potstill.recipe.conversations import Conversations, ConversationSource, HeldOutConversations
from potstill.recipe.corpus import Corpus, HeldOutText, HubDataset, Source
from potstill.recipe.evaluate import MinimalPairs, NamedPairs, PairFiles
from potstill.recipe.precision import trainings
from potstill.recipe.questions import GeneratedQuestions, HeldOutQuestions, Questions, QuestionSource
from potstill.recipe.student import Checkpoint
from potstill.recipe.teachers import (
    Llama2cTeacher,
    NamedAtServer,
    NamedTeacher,
    PackagedTeacher,
    PotstillTeacher,
    Teacher,
)
from potstill.recipe.tokenizer import CutTokenizer, TokenizerFile

HASHED_UP_TO = 256 * 2**20
"""Bytes. A larger file is fingerprinted by its size and modification time: a hash would take seconds at every start."""


def source_files(recipe: Recipe) -> dict[str, str]:
    """The fingerprint of every file that `corpus` names.

    Raises:
        UserError: a package or a file is missing.
    """
    found: dict[str, str] = {}
    for key, source in named_sources(recipe.corpus):
        found |= _fingerprints(key, _source_files(source, key))
    template = recipe.corpus.template if isinstance(recipe.corpus, Conversations) else None
    if template is not None and _is_file(template):
        found |= _fingerprints("corpus.template", [named_path(template)])
    return found


def named_sources(
    corpus: Corpus | Questions | Conversations,
) -> list[tuple[str, Source | QuestionSource | ConversationSource]]:
    """Every source of training and held-out data, with its key in the recipe."""
    held_out = corpus.held_out
    if isinstance(corpus, Questions):
        apart = held_out.questions if isinstance(held_out, HeldOutQuestions) else []
        return [*_numbered("corpus.questions", corpus.questions), *_numbered("corpus.held_out.questions", apart)]
    if isinstance(corpus, Conversations):
        aside = held_out.conversations if isinstance(held_out, HeldOutConversations) else []
        own = _numbered("corpus.conversations", corpus.conversations)
        return [*own, *_numbered("corpus.held_out.conversations", aside)]
    others = held_out.sources if isinstance(held_out, HeldOutText) else []
    return [*_numbered("corpus.sources", corpus.sources), *_numbered("corpus.held_out.sources", others)]


def _numbered(key: str, sources: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(f"{key}.{index}", source) for index, source in enumerate(sources)]


def tokenizer_files(recipe: Recipe) -> dict[str, str]:
    """The fingerprint of the tokenizer's file, or of its training text. A teacher's tokenizer has the teacher's own.

    Raises:
        UserError: a package or a file is missing.
    """
    if isinstance(recipe.tokenizer, CutTokenizer):
        return {}
    if isinstance(recipe.tokenizer, TokenizerFile):
        file = named_path(recipe.tokenizer.file)
        if not file.is_file():
            raise UserError(f"`tokenizer.file`: there is no file {recipe.tokenizer.file!r} (seen from {Path.cwd()})")
        return _fingerprints("tokenizer.file", [file])
    return source_files(recipe)


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


def start_files(recipe: Recipe) -> dict[str, str]:
    """The fingerprint of every file of the folder in which the student starts; none if it is made here."""
    if not isinstance(recipe.student, Checkpoint):
        return {}
    return _fingerprints("student.model", _in_folder(recipe.student.model))


def training_files(recipe: Recipe) -> dict[str, str]:
    """The fingerprint of the file of DeepSpeed's settings of each training that names one."""
    named = {f"{section}.training.deepspeed": training.get("deepspeed") for section, training in trainings(recipe)}
    files = {key: file for key, file in named.items() if isinstance(file, str) and _is_file(file)}
    return {
        name: found for key, file in files.items() for name, found in _fingerprints(key, [named_path(file)]).items()
    }


def captured_files(recipe: Recipe) -> dict[str, str]:
    """The fingerprint of the header of each store that `capture.store` names.

    Raises:
        UserError: there is no such store.
    """
    if recipe.capture is None or recipe.capture.store is None:
        return {}
    folders = [named_path(recipe.capture.store) / name for name in [*recipe.sample_sets] or [""]]
    files = [folder / name / "store.json" for folder in folders for name in recipe.teachers]
    if missing := next((file for file in files if not file.is_file()), None):
        raise UserError(
            f"`capture.store`: {str(missing)!r} is missing (seen from {Path.cwd()}); give the folder `capture` of a "
            "run that captured spans of a teacher of this name"
        )
    return _fingerprints("capture.store", files)


def evaluation_files(recipe: Recipe) -> dict[str, str]:
    """The fingerprint of every file that `evaluate` names on this machine.

    Raises:
        UserError: a file is missing.
    """
    found: dict[str, str] = {}
    for name, pairs in recipe.evaluate.minimal_pairs.items():
        key = f"evaluate.minimal_pairs.{name}"
        found |= _fingerprints(key, _files_of_pairs(pairs, key))
    for number, task in enumerate(recipe.evaluate.tasks):
        if task.path is not None:
            key = f"evaluate.tasks.{number}"
            files = _in_folder(task.path)
            found |= _fingerprints(key, sorted({*files, *data_files_named_in(files)}))
    for name, model in recipe.evaluate.models.items():
        found |= _fingerprints(f"evaluate.models.{name}", _in_folder(model))
    for name, given in recipe.evaluate.continuations.items():
        found |= _continuation_files(given, f"evaluate.continuations.{name}")
    return found


def _files_of_pairs(pairs: MinimalPairs, key: str) -> Sequence[Path]:
    if isinstance(pairs, PairFiles):
        return pair_files(pairs.path, f"{key}.path")
    return files_of(pairs, key) if isinstance(pairs, NamedPairs) else _in_folder(pairs.dataset)


def _continuation_files(given: ContinuationSet | ContinuationFile, key: str) -> dict[str, str]:
    found = _fingerprints(key, [continuations_file(given, key)])
    if given.words is not None:
        found |= _fingerprints(f"{key}.words", [vectors_file(given.words, f"{key}.words")])
    if given.sentences is not None:
        found |= _fingerprints(f"{key}.sentences", _in_folder(sentence_model(given.sentences, f"{key}.sentences")))
    return found


def review_files(run: Run) -> dict[str, str]:
    """The fingerprint of the file with people's decisions about the run's answers."""
    file = run.path("review") / "decisions.csv"
    return {"review: decisions.csv": fingerprint(file)} if file.is_file() else {}


def snapshot_curve_files(run: Run) -> dict[str, str]:
    """The fingerprint of the snapshot curves that `potstill evaluate RUN --snapshots` measured."""
    file = run.path("snapshots") / "curves.json"
    return {"snapshots: curves.json": fingerprint(file)} if file.is_file() else {}


def _in_folder(name: str) -> list[Path]:
    """The files of a local data set; none for a data set on the hub."""
    folder = named_folder(name)
    return [] if folder is None else sorted(file for file in folder.rglob("*") if file.is_file())


def data_files_named_in(files: Sequence[Path]) -> set[Path]:
    """The existing data files that YAML task files name."""
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.suffix in (".yaml", ".yml")]
    named = {value for text in texts for value in _values(text) if "." in value}
    return {Path(value).resolve() for value in named if _is_file(value)}


def _values(text: str) -> Iterator[str]:
    """The values of a YAML file, and the words of its text: all names in it, also if it is not valid."""
    import yaml

    yield from re.findall(r"[^\s\"',\[\]{}]+", text)
    with suppress(yaml.YAMLError):
        yield from (event.value for event in yaml.parse(text) if isinstance(event, yaml.ScalarEvent))


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except OSError:  # a value that is too long for a name
        return False


def _source_files(source: Source | QuestionSource | ConversationSource, key: str) -> Sequence[Path]:
    if isinstance(source, GeneratedQuestions):
        return []
    return _in_folder(source.dataset) if isinstance(source, HubDataset) else files_of(source, key)


def _teacher_files(teacher: Teacher, key: str) -> Sequence[Path]:
    if isinstance(teacher, PackagedTeacher):
        return package_files(teacher.package, teacher.gguf, key, "gguf")[:1]
    if isinstance(teacher, Llama2cTeacher):
        files = (named_path(file) for file in (teacher.llama2c, teacher.tokenizer))
        return [file for file in files if file.is_file()]
    if isinstance(teacher, NamedTeacher):
        return [file for split in ("model", "tokenizer") for file in named_files(teacher.data, split, f"{key}.data")]
    if isinstance(teacher, PotstillTeacher):
        return []
    if isinstance(teacher, NamedAtServer):
        return _in_folder(teacher.tokenizer or teacher.model)
    folder = named_folder(teacher.model)
    if folder is None:
        return []
    if teacher.gguf:
        return [file for file in (folder / teacher.gguf,) if file.is_file()]
    return sorted(file for file in folder.iterdir() if file.is_file())


def _fingerprints(key: str, files: Sequence[Path]) -> dict[str, str]:
    """Fingerprints under the shortest distinct names. The place of a package or folder does not count as a change."""
    parts = 1
    while len({file.parts[-parts:] for file in files}) < len(files):
        parts += 1
    return {f"{key}: {Path(*file.parts[-parts:])}": fingerprint(file) for file in files}


def fingerprint(file: Path) -> str:
    """The SHA-256 of a file; for a large file, its size and modification time."""
    status = file.stat()
    return sha256(file) if status.st_size <= HASHED_UP_TO else f"{status.st_size} bytes, {status.st_mtime_ns}"
