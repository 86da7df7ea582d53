"""GGUF: models in llama.cpp's format, read by transformers and saved as plain Hugging Face folders."""

import glob
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from potstill.models.folder import save_model
from potstill.models.pretrained import ModelSource, check_tokens


def parts_pattern(gguf: str) -> str:
    """A glob pattern of all files of a GGUF model, which may have several parts (`-00001-of-00009.gguf`)."""
    return re.sub(r"-\d{5}-of-(\d{5})\.gguf$", r"-*-of-\1.gguf", glob.escape(gguf))


@contextmanager
def one_reading() -> Iterator[None]:
    """Read the header of each GGUF file only once within this block.

    transformers reads it five times for one conversion: for the configuration, the weights and the tokenizer. Each time
    takes seconds, because all tokens are in it.
    """
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = cache(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def convert(source: ModelSource, folder: Path) -> None:
    """Save a GGUF model as a plain folder with the same logits, bit for bit."""
    loaded, tokenizer = source.model(dtype=torch.float32), source.tokenizer()
    check_tokens(tokenizer, loaded.get_input_embeddings().num_embeddings, source.what)
    # transformers refuses save_pretrained for a model loaded from GGUF, so its weights move to a plain model.
    config = loaded.config.__class__.from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    save_model(plain, tokenizer, folder)


NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""How :mod:`struct` reads the numbers of a header, by GGUF's own codes (github.com/ggml-org/ggml, docs/gguf.md)."""
TEXT, ARRAY = 8, 9
LONGEST_TEXT = 2**20
HEAD = b"output.weight"
LONGEST_HEADER = 2**26
"""Bytes of a header with its tokenizer; the largest has 20 MB."""


def sizes_in_header(file: Path) -> dict[str, Any] | None:
    """The sizes of a GGUF model from the first kilobytes of its file.

    transformers and gguf read the whole vocabulary first, which takes seconds.

    Returns:
        Fields of a transformers configuration, with `model_type`. None if the file is no GGUF file, or transformers
        does not know its architecture.
    """
    header = facts_in_header(file)
    kind = str(header.get("general.architecture"))
    if kind not in GGUF_CONFIG_MAPPING or kind not in CONFIG_MAPPING:
        return None
    names = {f"{kind}.{key}": name for key, name in GGUF_CONFIG_MAPPING[kind].items() if name}
    found = {names[key]: value for key, value in header.items() if key in names}
    return {"model_type": kind, "tie_word_embeddings": not _has_head(file), **found}


def facts_in_header(file: Path) -> dict[str, Any]:
    """The numbers and texts of a GGUF file's header, up to its tokenizer; empty if the file is no GGUF file."""
    try:
        with file.open("rb") as stream:
            return dict(_header(stream))
    except (OSError, ValueError, KeyError, struct.error):
        return {}


def _has_head(file: Path) -> bool:
    """Whether a GGUF file has a head of its own. Its tensors' names, with their lengths, come after the tokenizer."""
    with file.open("rb") as stream:
        return struct.pack("<Q", len(HEAD)) + HEAD in stream.read(LONGEST_HEADER)


def _header(stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    """The numbers and texts of a header, up to its tokenizer."""
    magic, _, _, count = struct.unpack("<4sIQQ", stream.read(24))
    if magic != b"GGUF":
        raise ValueError("no GGUF file")
    for _ in range(count):
        key = _value(stream, TEXT)
        if key.startswith("tokenizer."):
            return
        (code,) = struct.unpack("<I", stream.read(4))
        yield key, _value(stream, code)


def _value(stream: BinaryIO, code: int) -> Any:
    if code == TEXT:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > LONGEST_TEXT:
            raise ValueError("damaged")
        return stream.read(length).decode()
    if code == ARRAY:
        inner, length = struct.unpack("<IQ", stream.read(12))
        return [_value(stream, inner) for _ in range(length)]
    form = f"<{NUMBERS[code]}"
    return struct.unpack(form, stream.read(struct.calcsize(form)))[0]
