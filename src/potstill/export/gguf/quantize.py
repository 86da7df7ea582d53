"""Quantise: which type each tensor of a file gets, by llama.cpp's own rules (src/llama-quant.cpp), and its bytes.

The rows are quantised by libgguf, which has llama.cpp's reference code.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType
from numpy.typing import NDArray
from torch import Tensor

from potstill.errors import UserError

Type = GGMLQuantizationType


@dataclass(frozen=True)
class FileType:
    """The types of a file's tensors."""

    number: LlamaFileType
    matrices: GGMLQuantizationType
    finer: GGMLQuantizationType | None = None
    """The type of the tensors that harm most when they are coarse. None: that of the others."""


FILE_TYPES: Mapping[str, FileType] = {
    "F16": FileType(LlamaFileType.MOSTLY_F16, Type.F16),
    "BF16": FileType(LlamaFileType.MOSTLY_BF16, Type.BF16),
    "Q8_0": FileType(LlamaFileType.MOSTLY_Q8_0, Type.Q8_0),
    "Q6_K": FileType(LlamaFileType.MOSTLY_Q6_K, Type.Q6_K),
    "Q5_K_M": FileType(LlamaFileType.MOSTLY_Q5_K_M, Type.Q5_K, Type.Q6_K),
    "Q4_K_M": FileType(LlamaFileType.MOSTLY_Q4_K_M, Type.Q4_K, Type.Q6_K),
}
"""By llama.cpp's names."""
NARROWER = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}
"""What takes the place of a type whose blocks of 256 numbers do not fit a tensor's rows: blocks of 32."""
EMBEDDINGS, HEAD = "token_embd.weight", "output.weight"
KEPT = ("position_embd.weight",)
"""Matrices that are looked up by position, and stay in float32 as in llama.cpp's converter."""


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor is in a file."""

    name: str
    shape: tuple[int, ...]
    layers: int
    """The layers of the model."""
    tied: bool
    """Whether the embeddings are the head too."""


def type_of(place: TensorPlace, file_type: FileType) -> GGMLQuantizationType:
    """The type of a tensor."""
    name = place.name
    if len(place.shape) < 2 or name.endswith("_norm.weight") or name in KEPT:
        return Type.F32
    wanted, width = file_type.matrices, place.shape[-1]
    if wanted in (Type.F16, Type.BF16):
        return wanted
    if name == HEAD or (place.tied and name == EMBEDDINGS):
        wanted = Type.Q8_0 if width % _block(wanted) or wanted is Type.Q8_0 else Type.Q6_K
    elif file_type.finer is not None and _is_sensitive(name, place.layers):
        wanted = file_type.finer
    if width % _block(wanted):
        wanted = NARROWER.get(wanted, wanted)
    return wanted if width % _block(wanted) == 0 else Type.F16


def _block(kind: GGMLQuantizationType) -> int:
    return int(GGML_QUANT_SIZES[kind][0])


def _is_sensitive(name: str, layers: int) -> bool:
    """Whether a tensor is a value or a last feed-forward matrix of one of the layers that llama.cpp keeps finer."""
    if not name.endswith((".attn_v.weight", ".attn_qkv.weight", ".ffn_down.weight")):
        return False
    layer, eighth = int(name.split(".")[1]), layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def check_quantizer(kind: str) -> None:
    """Check that what packs the numbers of a file type is installed.

    Raises:
        UserError: it is not.
    """
    if FILE_TYPES[kind].matrices is not Type.F16 and importlib.util.find_spec("libgguf") is None:
        raise UserError(
            f"`export.to`: `gguf:{kind}` is packed by libgguf, which is not installed here: "
            "pip install 'potstill[export]'"
        )


def quantized(weight: Tensor, kind: GGMLQuantizationType, name: str) -> NDArray[Any]:
    """A weight in float32 as the numbers or the packed bytes of a type.

    Raises:
        UserError: a weight is too large for float16.
    """
    numbers = weight.numpy()
    if kind is Type.F32:
        return numbers
    if kind is Type.F16:
        with np.errstate(over="ignore"):
            rounded = numbers.astype(np.float16)
        if not np.isfinite(rounded).all():
            raise UserError(f"`export.to`: the weight {name} is too large for F16; export `gguf:BF16` instead")
        return rounded
    import libgguf

    return np.asarray(libgguf.quantize_rows(numbers, int(kind)))
