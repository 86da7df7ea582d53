import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf import dequantize

from potstill.export.gguf.quantize import FILE_TYPES, TensorPlace, quantized, type_of

LAYERS = 16


@pytest.mark.parametrize(
    ("kind", "name", "width", "expected"),
    [
        ("Q4_K_M", "blk.5.attn_q.weight", 512, Type.Q4_K),
        # llama.cpp keeps values and last matrices finer in the first and last eighth, and in each third layer between.
        ("Q4_K_M", "blk.0.attn_v.weight", 512, Type.Q6_K),
        ("Q4_K_M", "blk.4.ffn_down.weight", 512, Type.Q6_K),
        ("Q4_K_M", "blk.5.ffn_down.weight", 512, Type.Q4_K),
        ("Q4_K_M", "blk.15.ffn_down.weight", 512, Type.Q6_K),
        ("Q5_K_M", "blk.0.attn_qkv.weight", 512, Type.Q6_K),
        # Rows that blocks of 256 do not fit.
        ("Q4_K_M", "blk.5.attn_q.weight", 576, Type.Q5_0),
        ("Q5_K_M", "blk.5.attn_q.weight", 576, Type.Q5_1),
        ("Q6_K", "blk.5.attn_q.weight", 576, Type.Q8_0),
        ("Q8_0", "blk.5.attn_q.weight", 48, Type.F16),
        ("Q4_K_M", "output.weight", 512, Type.Q6_K),
        ("Q4_K_M", "output.weight", 576, Type.Q8_0),
        ("Q8_0", "output.weight", 512, Type.Q8_0),
        ("Q4_K_M", "token_embd.weight", 512, Type.Q4_K),
        ("F16", "token_embd.weight", 512, Type.F16),
        ("F16", "position_embd.weight", 512, Type.F32),
        ("Q8_0", "blk.0.attn_norm.weight", None, Type.F32),
    ],
)
def test_each_tensor_has_the_type_that_llama_cpp_gives_it(kind, name, width, expected):
    shape = (512,) if width is None else (512, width)
    assert type_of(TensorPlace(name, shape, LAYERS, tied=False), FILE_TYPES[kind]) is expected


def test_embeddings_that_are_the_head_are_as_fine_as_a_head():
    place = TensorPlace("token_embd.weight", (512, 512), LAYERS, tied=True)
    assert type_of(place, FILE_TYPES["Q4_K_M"]) is Type.Q6_K


@pytest.mark.parametrize(
    ("kind", "error"), [(Type.F16, 1e-3), (Type.Q8_0, 0.02), (Type.Q6_K, 0.1), (Type.Q5_K, 0.2), (Type.Q4_K, 0.4)]
)
def test_a_packed_weight_is_the_weight_rounded(kind, error):
    weight = torch.randn(8, 512, generator=torch.Generator().manual_seed(0))
    back = dequantize(quantized(weight, kind, "a"), kind)
    assert np.abs(back - weight.numpy()).max() < error
