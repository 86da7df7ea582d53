"""llama2.c (github.com/karpathy/llama2.c): reads its binary checkpoints and tokenizers as Hugging Face ones.

A checkpoint of version 0, which `run.c` reads (`export.py`, `legacy_export`), is little-endian. It has seven int32
(width, width of the feed-forward, layers, heads, key-value heads, tokens, positions), then the weights in float32, each
kind of weight for all layers together. A negative number of tokens means that head and embeddings are not tied. Between
the last norm and the head lie two rotary tables, which transformers computes itself.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from potstill.errors import UserError

HEADER = struct.Struct("<7i")
MAGIC = b"24ka"
"""The first bytes of all versions after 0: "ak42" as an int32."""
UNKNOWN, BEGIN, END, FIRST_BYTE, BYTES = 0, 1, 2, 3, 256
"""The ids that sentencepiece gives when llama2.c trains it: three special tokens, then one token per byte."""
NORM_EPSILON = 1e-5
"""The only value in `run.c`."""


@dataclass(frozen=True)
class Llama2cShape:
    """The sizes in a checkpoint's header."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    positions: int
    tied: bool

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the weights by their names in transformers, in the file's order; `rotary` are the tables."""
        hidden, inner, layers = self.hidden, self.inner, self.layers
        width = hidden // self.heads * self.kv_heads
        blocks = {
            "embed_tokens": (self.vocabulary, hidden),
            "input_layernorm": (layers, hidden),
            "self_attn.q_proj": (layers, hidden, hidden),
            "self_attn.k_proj": (layers, width, hidden),
            "self_attn.v_proj": (layers, width, hidden),
            "self_attn.o_proj": (layers, hidden, hidden),
            "post_attention_layernorm": (layers, hidden),
            "mlp.gate_proj": (layers, inner, hidden),
            "mlp.down_proj": (layers, hidden, inner),
            "mlp.up_proj": (layers, inner, hidden),
            "norm": (hidden,),
            "rotary": (2, self.positions, hidden // self.heads // 2),
        }
        return blocks if self.tied else blocks | {"lm_head": (self.vocabulary, hidden)}

    @property
    def config(self) -> LlamaConfig:
        """The configuration for transformers."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=self.positions,
            rms_norm_eps=NORM_EPSILON,
            tie_word_embeddings=self.tied,
            bos_token_id=BEGIN,
            eos_token_id=END,
        )


def read_model(file: Path, key: str) -> LlamaForCausalLM:
    """Read the model of a checkpoint, in float32.

    Args:
        file: a `.bin` of llama2.c's version 0.
        key: the recipe's key for the file, for messages.

    Raises:
        UserError: the file cannot be read, is of another version, is no checkpoint, or is not whole.
    """
    raw = _content(file, key)
    shape = _shape(raw, file, key)
    sizes = [math.prod(block) for block in shape.blocks.values()]
    expected = HEADER.size + 4 * sum(sizes)
    if len(raw) != expected:
        what = "is cut off" if len(raw) < expected else "is another file, or several in one"
        raise UserError(
            f"`{key}`: {file} has {len(raw):,} bytes, and a model with the sizes in its header has {expected:,}: "
            f"it {what}; get it again"
        )
    numbers = torch.from_numpy(np.frombuffer(raw, "<f4", offset=HEADER.size).astype(np.float32))
    parts = zip(shape.blocks.items(), numbers.split(sizes), strict=True)
    model = LlamaForCausalLM(shape.config).eval()
    model.load_state_dict(dict(_weights({name: part.view(block) for (name, block), part in parts}, shape)))
    return model


def read_shape(file: Path, key: str) -> Llama2cShape:
    """The sizes of a checkpoint.

    Args:
        file: a `.bin` of llama2.c's version 0.
        key: the recipe's key for the file, for messages.

    Raises:
        UserError: the file cannot be read, is of another version, or is no checkpoint.
    """
    return _shape(_content(file, key), file, key)


def _weights(blocks: dict[str, Tensor], shape: Llama2cShape) -> Iterator[tuple[str, Tensor]]:
    turned = {"self_attn.q_proj": shape.heads, "self_attn.k_proj": shape.kv_heads}
    embeddings = blocks["embed_tokens"]
    yield "model.embed_tokens.weight", embeddings
    yield "model.norm.weight", blocks["norm"]
    yield "lm_head.weight", embeddings if shape.tied else blocks["lm_head"]
    for name, block in blocks.items():
        if name not in ("embed_tokens", "norm", "rotary", "lm_head"):
            for layer, weight in enumerate(block):
                rows = half_split(weight, turned[name]) if name in turned else weight
                yield f"model.layers.{layer}.{name}.weight", rows


def half_split(rows: Tensor, heads: int) -> Tensor:
    """The rows of a query or key projection in the order in which transformers rotates them.

    Rotary position embeddings (arXiv:2104.09864) rotate pairs of a head's dimensions. Llama's own code and llama2.c
    pair the neighbours 2i and 2i + 1; transformers pairs i and i + D/2, for a head of D dimensions. Without this
    reordering, the model loads and runs but writes nonsense.

    Args:
        rows: [heads * D, H], each head's D rows together, D even.
        heads: the heads of this projection; keys may have fewer than queries.
    """
    return rows.view(heads, -1, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def read_tokenizer(file: Path, key: str, tokens: int) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a `.bin` that llama2.c's `tokenizer.py` made from a sentencepiece BPE model.

    The file holds an int32, and then for each token its score (float32), its number of bytes (int32) and its bytes. The
    tokenizer encodes as `run.c` does: it puts a space before the text and first merges the pair whose token has the
    highest score.

    Args:
        file: the tokenizer.
        key: the recipe's key for the file, for messages.
        tokens: the number of tokens of the model.

    Raises:
        UserError: the file cannot be read, is no such tokenizer, is not whole, or belongs to another model.
    """
    if file.suffix == ".model":
        raise UserError(
            f"`{key}`: {file} is sentencepiece's own file; name the .bin that run.c reads, which llama2.c's "
            "tokenizer.py makes from it (`tokenizer.py --tokenizer-model`)"
        )
    scored = list(_pieces(_content(file, key), file, key))
    if len(scored) != tokens:
        raise UserError(
            f"`{key}`: {file} has {len(scored):,} tokens and the model {tokens:,}; name the one it was trained with"
        )
    pieces = [piece.replace(" ", "▁") for piece, _ in scored]
    pieces[UNKNOWN], pieces[BEGIN], pieces[END] = "<unk>", "<s>", "</s>"
    if pieces[FIRST_BYTE : FIRST_BYTE + BYTES] != [f"<0x{byte:02X}>" for byte in range(BYTES)]:
        raise UserError(f"`{key}`: {file} is no tokenizer of llama2.c: its tokens 3 to 258 are not the bytes")
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = _merges(pieces, [score for _, score in scored], vocabulary)
    bpe = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False, **roles)


def _merges(pieces: list[str], scores: list[float], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a token, highest score first; byte tokens are not made of text."""
    numbers = sorted(range(FIRST_BYTE + BYTES, len(pieces)), key=lambda number: -scores[number])
    return [
        (piece[:cut], piece[cut:])
        for piece in (pieces[number] for number in numbers)
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]


def _pieces(raw: bytes, file: Path, key: str) -> Iterator[tuple[str, float]]:
    at = 4
    try:
        while at < len(raw):
            score, size = struct.unpack_from("<fi", raw, at)
            at += 8 + size
            if size < 0 or at > len(raw):
                raise ValueError("a token goes on after the end")
            yield raw[at - size : at].decode(), score
    except (struct.error, ValueError) as error:
        raise UserError(
            f"`{key}`: {file} is no tokenizer of llama2.c, or it is cut off; name the whole .bin that run.c reads"
        ) from error


def _shape(raw: bytes, file: Path, key: str) -> Llama2cShape:
    if raw.startswith(MAGIC):
        version = int.from_bytes(raw[4:8], "little")
        raise UserError(
            f"`{key}`: {file} is of llama2.c's version {version}, and potstill reads version 0, whose weights "
            "are not quantised; write it again with llama2.c's `export.py --version 0`"
        )
    if len(raw) < HEADER.size:
        raise UserError(f"`{key}`: {file} has {len(raw)} bytes, which is no model of llama2.c; get it again")
    hidden, inner, layers, heads, kv_heads, vocabulary, positions = HEADER.unpack_from(raw)
    shape = Llama2cShape(hidden, inner, layers, heads, kv_heads, abs(vocabulary), positions, tied=vocabulary > 0)
    sizes = (hidden, inner, layers, heads, kv_heads, abs(vocabulary), positions)
    if min(sizes) < 1 or hidden % heads or heads % kv_heads or hidden // heads % 2:
        raise UserError(f"`{key}`: {file} does not have a header of llama2.c; name a .bin that run.c reads")
    return shape


def _content(file: Path, key: str) -> bytes:
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(
            f"`{key}`: there is no file {str(file)!r} that could be read (seen from {Path.cwd()})"
        ) from error
