"""Formats: how a student is written in each format, and opened in the program that will run it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from potstill.device import device
from potstill.export.engines.llama_cpp import LlamaCpp, check_installed
from potstill.export.engines.transformers import Transformers
from potstill.export.folder import open_folder, write_int8, write_merged
from potstill.export.gguf.file import end_tokens, head_in_file, write_gguf
from potstill.export.gguf.quantize import check_quantizer
from potstill.export.gguf.tokenizer import adds_bos, kind_of, starts_with_space
from potstill.export.measure import Engine
from potstill.export.modelfile import Messages, Render, modelfile, turns_of
from potstill.export.student import ExportedStudent
from potstill.files.atomic import remove, write_text
from potstill.models.quantization import check_installed as check_method
from potstill.recipe.export_formats import ExportFormat, file_type_of

MODELFILE, WEIGHTS = "Modelfile", "model"


def check(format_: ExportFormat) -> None:
    """Check that the packages of a format are here.

    Raises:
        UserError: one is not.
    """
    kind = file_type_of(format_)
    if kind is not None:
        check_installed()
        check_quantizer(kind)
    elif format_ == "int8":
        check_method("torchao", "export.to")


def write(student: ExportedStudent, format_: ExportFormat, folder: Path, name: str) -> tuple[Path, list[str]]:
    """Write a student. A file that is there already was written by an earlier attempt, and stays.

    Args:
        student: the student.
        format_: the format.
        folder: where to write; it exists.
        name: the model's name.

    Returns:
        The file or the folder with the weights; and in what its engine differs, for readers.

    Raises:
        UserError: the model or its tokenizer has no such format.
    """
    kind = file_type_of(format_)
    if kind is None:
        place, write_folder = folder / WEIGHTS, write_int8 if format_ == "int8" else write_merged
        if not place.exists():
            write_folder(student.plain, student.tokenizer, place)
        return place, []
    file = folder / f"{name}-{kind}.gguf"
    notes = list(kind_of(student.tokenizer).notes)
    if not file.exists():
        write_gguf(student.plain, student.tokenizer, file, kind, name)
    turns = None if student.tokenizer.chat_template is None else turns_of(_render(student))
    if student.tokenizer.chat_template is not None and turns is None:
        notes.append("The chat template cannot be written in Ollama's language, so there is no Modelfile")
    else:
        ends = [student.tokenizer.decode([end]) for end in end_tokens(student.plain, student.tokenizer)]
        before = " " if starts_with_space(student.tokenizer) else ""
        write_text(folder / MODELFILE, modelfile(file.name, turns, before, ends))
    return file, notes


def discard(folder: Path) -> None:
    """Remove what was written into a folder."""
    for file in [folder / WEIGHTS, folder / MODELFILE, *folder.glob("*.gguf")]:
        remove(file)


@contextmanager
def opened(student: ExportedStudent, format_: ExportFormat, place: Path, context: int) -> Iterator[Engine]:
    """What was written, in the engine that runs it.

    Args:
        student: the student.
        format_: the format.
        place: what was written.
        context: the most tokens that are read and written at once.

    Raises:
        UserError: the engine cannot open it.
    """
    kind = file_type_of(format_)
    if kind is None:
        model, tokenizer = open_folder(place, device())
        yield Transformers(model, tokenizer, end_tokens(model, tokenizer))
    else:
        with LlamaCpp(place, head_in_file(student.plain, kind), context) as engine:
            yield engine


def further_ends(student: ExportedStudent, engine: Engine) -> list[int]:
    """The special tokens at which llama.cpp stops by itself and the student in transformers does not. It knows many
    tokens by their text, such as those that end a document, whatever the file says."""
    if not isinstance(engine, LlamaCpp):
        return []
    own = end_tokens(student.plain, student.tokenizer)
    special = [number for number, token in student.tokenizer.added_tokens_decoder.items() if token.special]
    return engine.ends_among(number for number in special if number not in own)


def as_trained(student: ExportedStudent, more_ends: Sequence[int]) -> Transformers:
    """The student itself, in transformers, which also stops at some more tokens."""
    ends = [*end_tokens(student.plain, student.tokenizer), *more_ends]
    return Transformers(student.model, student.tokenizer, ends)


def bos_text(student: ExportedStudent) -> str:
    """The text of the token that engines put before every text by themselves; empty if there is none."""
    return str(student.tokenizer.bos_token) if adds_bos(student.tokenizer) else ""


def _render(student: ExportedStudent) -> Render:
    tokenizer, bos = student.tokenizer, bos_text(student)

    def render(messages: Messages, to_answer: bool) -> str:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=to_answer)
        return str(text).removeprefix(bos)

    return render
