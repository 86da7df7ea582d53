"""Kernels: how fast this machine does what is no matrix product: attention, and operations on each element.

On a CPU with units for products of bfloat16 (AMX), the products are the smaller part of a training's step. The backward
of torch's attention is slower there than its products by a factor of twenty and more.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from potstill.planning.trace import DTYPES, attention_backward, attention_forward

TOKENS, HEADS, HEAD_SIZE, WIDTH = 1024, 8, 64, 1536
"""Of a batch that is tried: its tokens, its attention, and the width of a feed-forward layer."""
LENGTHS = (32, 128, 512)
"""The lengths of samples with which attention is tried."""
TRIES, REPEATED = 4, 8
PIECE, PIECES = 2**22, 48
"""Bytes of a piece of new memory, and how many are asked for."""
KEPT_BY_LIBRARY = 64 * 2**20
"""Bytes of freed memory that the C library keeps in potstill's commands (`cli/native_libraries.py`)."""


@dataclass(frozen=True)
class AttentionRates:
    """Additions and multiplications a second, of those that `trace.attention_forward` and its backward count."""

    forward: float
    backward: float


def attention_rates() -> dict[tuple[str, int], AttentionRates]:
    """The rates of causal attention on this CPU, by number format and length of samples."""
    return {(name, length): _attention(dtype, length) for name, dtype in DTYPES.items() for length in LENGTHS}


def _attention(dtype: torch.dtype, length: int) -> AttentionRates:
    shape = TOKENS // length, HEADS, length, HEAD_SIZE
    query, key, value = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    out = scaled_dot_product_attention(query, key, value, is_causal=True)
    gradient = torch.ones_like(out)

    def forward() -> None:
        with torch.no_grad():
            scaled_dot_product_attention(query, key, value, is_causal=True)

    def backward() -> None:
        torch.autograd.grad(out, (query, key, value), gradient, retain_graph=True)

    size = torch.Size(shape)
    return AttentionRates(
        attention_forward(size, size, size) / _best(forward),
        attention_backward(size, size, size, size) / _best(backward),
    )


def elementwise_rate() -> float:
    """The bytes a second that operations on each element read and write on this CPU, in memory that was used before."""
    values = torch.randn(TOKENS, WIDTH)
    half = values.bfloat16()

    def several() -> None:
        for _ in range(REPEATED):
            values * values, values.bfloat16(), half.float()

    return REPEATED * (12 + 6 + 6) * values.numel() / _best(several)


def new_memory_rate() -> float:
    """The bytes a second that the system gives anew, beside the time to write them once.

    It gives them in pages, and clears each. They are asked for in pieces as large as activations are.
    """
    pieces: list[Tensor] = []

    def first() -> None:
        pieces.clear()
        pieces.extend(torch.empty(PIECE, dtype=torch.uint8).fill_(1) for _ in range(PIECES))

    def again() -> None:
        for piece in pieces:
            piece.fill_(1)

    in_new, in_known = _best(first), _best(again)
    # The rest has been used before. Where memory is given faster than it is written, the difference is noise.
    new = PIECE * PIECES - KEPT_BY_LIBRARY
    return new / max(in_new - in_known, 0.05 * in_new)


def _best(do: Callable[[], None]) -> float:
    """The seconds of the fastest of some tries. The first one, which warms up the kernel, is not counted."""
    found = []
    for _ in range(TRIES):
        began = time.perf_counter()
        do()
        found.append(time.perf_counter() - began)
    return min(found[1:])
