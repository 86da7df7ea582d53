"""Integers in few bits: fixed-width fields, and sorted ids as Elias-Fano lists.

Everything runs on the device of the tensors. Bits are counted from the least significant bit of the first byte.
Shapes: N records, K entries in each.
"""

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.nn.functional import pad


def bytes_for(bits: int) -> int:
    """The number of whole bytes that hold ``bits`` bits."""
    return -(-bits // 8)


def _places(count: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    start = torch.arange(count, device=device) * width
    return start >> 3, (start & 7).int()


def pack(values: Int[Tensor, "N K"], width: int) -> UInt8[Tensor, "N bytes"]:
    """Put each row's values side by side, ``width`` (0 to 24) bits each."""
    rows, count = values.shape
    first, shift = _places(count, width, values.device)
    shifted = values.int() << shift
    spread = bytes_for(width + 7)
    out = torch.zeros(rows, bytes_for(count * width) + spread, dtype=torch.int32, device=values.device)
    for byte in range(spread):
        out.index_add_(1, first + byte, (shifted >> (8 * byte)) & 255)
    return out[:, : bytes_for(count * width)].to(torch.uint8)


def unpack(packed: UInt8[Tensor, "N bytes"], width: int, count: int) -> Int[Tensor, "N K"]:
    """The inverse of :func:`pack`, as int32."""
    first, shift = _places(count, width, packed.device)
    spread = bytes_for(width + 7)
    # Bytes first, records last: taking one byte of all records is then a single copy (three times faster on a CPU).
    padded = pad(packed.t(), (0, 0, 0, spread)).int()
    word = torch.zeros(count, len(packed), dtype=torch.int32, device=packed.device)
    for byte in range(spread):
        word |= padded[first + byte] << (8 * byte)
    return ((word >> shift[:, None]) & ((1 << width) - 1)).t().contiguous()


def _set_bits(packed: UInt8[Tensor, "N bytes"], count: int) -> Int[Tensor, "N K"]:
    """The places of the set bits, ``count`` in each row."""
    if packed.device.type != "cpu":
        return _set_bits_by_torch(packed, count)
    flat = np.flatnonzero(np.unpackbits(packed.numpy(), axis=1, bitorder="little").view(bool))
    return torch.from_numpy(flat).view(-1, count) - torch.arange(len(packed))[:, None] * (8 * packed.shape[1])


def _set_bits_by_torch(packed: UInt8[Tensor, "N bytes"], count: int) -> Int[Tensor, "N K"]:
    """The same on any device, without synchronising with it; seven times slower on a CPU."""
    eight = torch.arange(8, dtype=torch.uint8, device=packed.device)
    bits = ((packed[:, :, None] >> eight) & 1).flatten(1)
    return bits.nonzero_static(size=len(packed) * count)[:, 1].view(-1, count)


def low_width(vocabulary: int, count: int) -> int:
    """The width of the low part of an id that gives the shortest list of ``count`` ids below ``vocabulary``."""
    return min(range(21), key=lambda width: count * width + high_bits(vocabulary, count, width))


def high_bits(vocabulary: int, count: int, width: int) -> int:
    """The bits of the high part of an Elias-Fano list whose low parts take ``width`` bits."""
    return count + ((vocabulary - 1) >> width)


def list_bytes(vocabulary: int, count: int) -> tuple[int, int]:
    """The bytes of the low and the high part of a list of ``count`` ids below ``vocabulary``."""
    width = low_width(vocabulary, count)
    return bytes_for(count * width), bytes_for(high_bits(vocabulary, count, width))


def pack_ids(
    ids: Int[Tensor, "N K"], vocabulary: int
) -> tuple[UInt8[Tensor, "N low_bytes"], UInt8[Tensor, "N high_bytes"]]:
    """Each row's ids, ascending (repeats allowed), as an Elias-Fano list.

    Its size is within half a bit per id of the minimum for a sorted list. Fixed-width ids would also store their order,
    which nobody needs and which costs ``log2(K!)`` bits. The low ``width`` bits of each id stand side by side. The high
    part is a string of bits in which bit ``(id >> width) + place`` is set. Elias (1974), "Efficient storage and
    retrieval by content and address of static files"; Fano (1971).
    """
    rows, count = ids.shape
    width = low_width(vocabulary, count)
    at = (ids >> width) + torch.arange(count, device=ids.device)
    high = torch.zeros(rows, list_bytes(vocabulary, count)[1], dtype=torch.int32, device=ids.device)
    high.scatter_add_(1, at >> 3, (1 << (at & 7)).int())
    return pack(ids & ((1 << width) - 1), width), high.to(torch.uint8)


def unpack_ids(
    low: UInt8[Tensor, "N low_bytes"], high: UInt8[Tensor, "N high_bytes"], vocabulary: int, count: int
) -> Int[Tensor, "N K"]:
    """The inverse of :func:`pack_ids`, as int64."""
    width = low_width(vocabulary, count)
    above = _set_bits(high, count) - torch.arange(count, device=high.device)
    return (above << width) | unpack(low, width, count)
