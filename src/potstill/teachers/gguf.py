"""GGUF: models in llama.cpp's format, read by transformers and saved as plain Hugging Face folders."""

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
    """A glob pattern of all files of a GGUF model, which may have several parts (`-00001-of-00009.gguf`)."""
    return re.sub(r"-\d{5}-of-(\d{5})\.gguf$", r"-*-of-\1.gguf", gguf)


@contextmanager
def reading_gguf(name: str, gguf: str) -> Iterator[None]:
    """Turn the exceptions that a damaged GGUF file causes into one message to the user."""
    try:
        yield
    except (OSError, ValueError, LookupError, struct.error) as error:
        reason = first_line(error)
        raise UserError(f"`teachers.{name}.gguf`: {gguf} cannot be read as a GGUF model: {reason}") from error


def convert(name: str, source: str, gguf: str, commit: str | None, folder: Path) -> None:
    """Save a GGUF model as a plain folder with the same logits, bit for bit."""
    with reading_gguf(name, gguf):
        given = {"gguf_file": gguf, "revision": commit}
        loaded = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **given)
        tokenizer = AutoTokenizer.from_pretrained(source, **given)
    # transformers refuses save_pretrained for a model loaded from GGUF, so its weights move to a plain model.
    config = loaded.config.__class__.from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    save_model(plain, tokenizer, folder)
