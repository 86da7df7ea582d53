import pytest

from potstill.errors import UserError
from potstill.targets import HiddenCodec, HybridCodec, SampledCodec, TopKCodec, estimate, make_codec
from potstill.targets.codecs.registry import Codec, codec_settings
from potstill.targets.codecs.spans import SpanCodec
from potstill.targets.codecs.turns import TurnCodec

ALL = [
    TopKCodec(49152, 64, 16, (1.0, 2.0)),
    SampledCodec(49152, 20, 2.0),
    HybridCodec(49152, 8, 8, 16),
    HiddenCodec(49152, 576),
    SpanCodec(4000, 256, 2048),
    TurnCodec(),
]


@pytest.mark.parametrize("codec", ALL)
def test_a_codec_is_made_again_from_its_settings(codec: Codec) -> None:
    assert make_codec(**codec_settings(codec)) == codec


def test_an_unknown_mode_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"'topk'.*top_k, sample, hybrid, hidden, spans, turns"):
        make_codec("topk", vocabulary=5)


def test_a_setting_of_another_mode_is_refused() -> None:
    with pytest.raises(UserError, match="sample has no setting 'k'"):
        make_codec("sample", vocabulary=5, k=3)


def test_the_default_takes_160_bytes_a_token_and_says_so() -> None:
    told = estimate(TopKCodec(49152), tokens=128_000, samples=1000)
    assert told.total_bytes == 128_000 * 160 + 1000 * 24
    assert told.bytes_per_token == told.total_bytes / 128_000 < 200


def test_an_unbiased_mode_takes_less_than_50() -> None:
    assert estimate(SampledCodec(49152), tokens=128_000, samples=1000).bytes_per_token <= 50
