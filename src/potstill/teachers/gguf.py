"""GGUF: models in llama.cpp's format, read by transformers and written as plain folders."""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.errors import UserError, first_line
from potstill.models.folder import save_model


def parts_pattern(gguf: str) -> str:
    """A pattern of all files of a GGUF model, which may be in several parts (`-00001-of-00009.gguf`)."""
    return re.sub(r"-\d{5}-of-(\d{5})\.gguf$", r"-*-of-\1.gguf", gguf)


@contextmanager
def reading_gguf(name: str, gguf: str) -> Iterator[None]:
    """Make one sentence of whatever a damaged GGUF file makes its readers raise."""
    try:
        yield
    except (OSError, ValueError, LookupError, struct.error) as error:
        reason = first_line(error)
        raise UserError(f"`teachers.{name}.gguf`: {gguf} cannot be read as a GGUF model: {reason}") from error


def convert(name: str, source: str, gguf: str, commit: str | None, folder: Path) -> None:
    """Write a GGUF model as a plain folder with the same logits, bit for bit."""
    with reading_gguf(name, gguf):
        given = {"gguf_file": gguf, "revision": commit}
        loaded = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **given)
        tokenizer = AutoTokenizer.from_pretrained(source, **given)
    # A model that was loaded from GGUF refuses save_pretrained; its plain twin does not.
    config = loaded.config.__class__.from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    save_model(plain, tokenizer, folder)
