"""GGUF: models in llama.cpp's format, read by transformers and saved as plain Hugging Face folders."""

import glob
import re
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from potstill.models.folder import save_model
from potstill.models.pretrained import ModelSource, check_tokens


def parts_pattern(gguf: str) -> str:
    """A glob pattern of all files of a GGUF model, which may have several parts (`-00001-of-00009.gguf`)."""
    return re.sub(r"-\d{5}-of-(\d{5})\.gguf$", r"-*-of-\1.gguf", glob.escape(gguf))


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
