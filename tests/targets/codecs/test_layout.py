import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from potstill.targets.codecs.layout import RANGE, Layout, dequantise, from_bytes, quantise, to_bytes

STEP = {8: 0.36, 16: 0.0015}
"""The largest step between neighbouring codes, in nats, with a small margin."""


@given(st.lists(st.floats(-RANGE, 0, width=32), min_size=1, max_size=20), st.sampled_from([8, 16, 32]))
def test_codes_stand_within_half_a_step(values: list[float], bits: int) -> None:
    shape = torch.tensor([values])
    back = dequantise(quantise(shape, bits), bits)
    assert torch.equal(back, shape) if bits == 32 else (back - shape).abs().max() <= STEP[bits] / 2


@pytest.mark.parametrize("bits", [8, 16])
def test_codes_are_finest_at_the_top(bits: int) -> None:
    top, ten_down = torch.linspace(-0.5, 0, 200), torch.linspace(-10.5, -10, 200)
    error = [(dequantise(quantise(x[None], bits), bits) - x).abs().max().item() for x in (top, ten_down)]
    assert error[0] < error[1] < 22 / 2**bits
    assert error[0] < 13 / 2**bits


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_zero_and_minus_infinity_are_exact(bits: int) -> None:
    shape = torch.tensor([[0.0, -torch.inf]])
    assert torch.equal(dequantise(quantise(shape, bits), bits), shape)


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_below_the_range_stays_finite_and_small(bits: int) -> None:
    assert dequantise(quantise(torch.tensor([[-1000.0]]), bits), bits).item() == pytest.approx(-RANGE)


@pytest.mark.parametrize("bits", [8, 16])
def test_every_code_comes_back_as_itself(bits: int) -> None:
    codes = torch.arange(2**bits, dtype=torch.int32)[None]
    packed = to_bytes(codes.to(torch.uint8 if bits == 8 else torch.uint16))
    assert torch.equal(quantise(dequantise(packed, bits), bits), packed)


def test_numbers_are_little_endian() -> None:
    assert to_bytes(torch.tensor([[1.0]])).tolist() == [[0, 0, 0x80, 0x3F]]
    assert from_bytes(torch.tensor([[0, 0, 0x80, 0x3F]], dtype=torch.uint8), torch.float32).item() == 1.0


def test_fields_are_split_as_they_were_joined() -> None:
    layout = Layout({"a": 2, "b": 0, "c": 1})
    parts = {"a": torch.tensor([[1, 2]]), "b": torch.empty(1, 0, dtype=torch.int64), "c": torch.tensor([[3]])}
    packed = layout.join(**parts)
    assert packed.tolist() == [[1, 2, 3]]
    assert {name: part.tolist() for name, part in layout.split(packed).items()} == {
        "a": [[1, 2]],
        "b": [[]],
        "c": [[3]],
    }
