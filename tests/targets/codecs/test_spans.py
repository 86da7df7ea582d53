import pytest
import torch

from potstill.errors import UserError
from potstill.targets.codecs.spans import LARGEST_BLOCK, SpanCodec, SpanNumbers

CODEC = SpanCodec(4000, 256, 2048)


def encoded(log_p, log_mass=None):
    steps = torch.arange(len(log_p)) % (LARGEST_BLOCK + 1)
    given = SpanNumbers(log_p, log_p.flip(0) if log_mass is None else log_mass, steps, steps % 3 == 1)
    return given, CODEC.decode(CODEC.encode(given, torch.zeros(len(log_p))))


def test_a_number_comes_back_with_a_relative_error_of_two_to_the_minus_sixteen():
    log_p = -torch.logspace(-12, 6, 20_001, dtype=torch.float64)
    given, found = encoded(log_p)
    for own, other in ((given.log_p, found.log_p), (given.log_mass, found.log_mass)):
        assert ((other.double() - own) / own).abs().max() <= 2**-16
    assert torch.equal(given.step, found.step)
    assert torch.equal(given.lost, found.lost)


def test_a_token_takes_seven_bytes():
    assert CODEC.layout.record_bytes == 7
    assert CODEC.encode(
        SpanNumbers(*torch.zeros(2, 5), *torch.zeros(2, 5, dtype=torch.int64)), torch.zeros(5)
    ).shape == (5, 7)


def test_certain_and_impossible_tokens_stay_so():
    log_p = torch.tensor([0.0, -torch.inf, -1e-13, 1e-8])
    _, found = encoded(log_p)
    assert found.log_p.tolist()[:3] == [0.0, -torch.inf, 0.0]
    assert torch.equal(found.log_mass, found.log_p.flip(0))


def test_greater_numbers_have_greater_codes():
    log_p = -torch.logspace(-13, 6.6, 50_000)
    _, found = encoded(log_p)
    assert (found.log_p.diff() <= 0).all()


def test_no_token_is_no_record():
    given, found = encoded(torch.zeros(0))
    assert len(given) == len(found) == 0


def test_what_is_no_number_is_refused():
    with pytest.raises(UserError, match=r"not all numbers \(NaN\)"):
        encoded(torch.tensor([-1.0, torch.nan]))


@pytest.mark.parametrize(
    ("given", "message"), [((4096, 256, 2048), "a block of 4096 bytes"), ((9, 20, 22), "reads 22 tokens")]
)
def test_impossible_settings_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        SpanCodec(*given)
