import pytest
import torch

from potstill.errors import UserError
from potstill.losses.span_likelihood import TokenNumbers
from potstill.targets.codecs.turns import TurnCodec

CODEC = TurnCodec()


def encoded(log_p):
    given = TokenNumbers(log_p, log_p.flip(0))
    return given, CODEC.decode(CODEC.encode(given, torch.zeros(len(log_p))))


def test_both_numbers_come_back_with_a_relative_error_of_two_to_the_minus_sixteen():
    given, found = encoded(-torch.logspace(-12, 6, 20_001, dtype=torch.float64))
    for own, other in zip(given, found, strict=True):
        assert ((other.double() - own) / own).abs().max() <= 2**-16


def test_a_token_takes_six_bytes():
    assert CODEC.layout.record_bytes == 6
    assert CODEC.encode(TokenNumbers(torch.zeros(5), torch.zeros(5)), torch.zeros(5)).shape == (5, 6)


def test_no_token_is_no_record():
    _, found = encoded(torch.zeros(0))
    assert len(found.log_p) == len(found.log_mass) == 0


def test_what_is_no_number_is_refused():
    with pytest.raises(UserError, match=r"not all numbers \(NaN\)"):
        encoded(torch.tensor([-1.0, torch.nan]))
