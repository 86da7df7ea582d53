import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.losses.teacher_target import LogitsTarget, SparseTarget
from potstill.targets import HybridCodec, SampledCodec
from potstill.targets.codecs.sample import draw

Drawing = SampledCodec | HybridCodec


def through(codec: Drawing, logits: torch.Tensor, uniforms: torch.Tensor, temperature: float = 1.0) -> SparseTarget:
    packed = codec.encode(LogitsTarget(logits), uniforms)
    assert packed.shape == (len(logits), codec.layout.record_bytes)
    return codec.decode(packed, temperature)


def dense(target: SparseTarget, vocabulary: int) -> torch.Tensor:
    zeros = torch.zeros(len(target.ids), vocabulary, dtype=torch.float64)
    return zeros.scatter_add_(1, target.ids, target.log_probs.double().exp())


def grid(count: int) -> torch.Tensor:
    """Evenly spaced numbers, so that a mean over them is an integral."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


@pytest.mark.parametrize(
    "codec", [SampledCodec(40, 7), SampledCodec(40, 1), HybridCodec(40, 5, 4, 32), HybridCodec(40, 1, 1, 32)]
)
@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_the_mean_of_draws_is_the_teacher(codec: Drawing, scale: float) -> None:
    logits = scale * torch.randn(1, 40, generator=torch.Generator().manual_seed(3))
    many = 4000
    target = through(codec, logits.expand(many, -1), grid(many))
    mean = dense(target, 40).mean(0)
    torch.testing.assert_close(mean, torch.softmax(logits[0].double(), -1), rtol=0, atol=2 / many)


def test_the_mean_over_real_keys_is_the_teacher_too() -> None:
    from potstill.targets.content_keys import uniforms

    logits = 2 * torch.randn(1, 40, generator=torch.Generator().manual_seed(3))
    numbers = torch.from_numpy(uniforms(b"0123456789abcdef", 20_000))
    drawn = dense(through(SampledCodec(40, 5), logits.expand(20_000, -1), numbers), 40)
    p = torch.softmax(logits[0].double(), -1)
    standard_error = drawn.std(0) / 20_000**0.5
    assert ((drawn.mean(0) - p).abs() <= 5 * standard_error + 1e-9).all()


def test_a_truncated_teacher_would_be_noticed() -> None:
    """The test above can fail: draws from only the likeliest twenty tokens are far outside its tolerance."""
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(3))
    cut = logits.masked_fill(logits < logits.median(), -torch.inf)
    mean = dense(through(SampledCodec(40, 7), cut.expand(4000, -1), grid(4000)), 40).mean(0)
    assert (mean - torch.softmax(logits[0].double(), -1)).abs().max() > 0.01


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 2**32))
@settings(max_examples=50)
def test_each_token_is_drawn_its_share_never_a_whole_draw_off(vocabulary: int, draws: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(5, vocabulary, generator=random)
    uniforms = torch.rand(5, generator=random, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    target = through(SampledCodec(vocabulary, draws), logits, uniforms)
    assert target.sampled
    shares = dense(target, vocabulary)
    assert ((shares - torch.softmax(logits.double(), -1)).abs() * draws < 1 + 1e-4).all()
    torch.testing.assert_close(shares.sum(-1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-6)
    assert (target.log_tail == -torch.inf).all()


@given(st.data())
@settings(max_examples=50)
def test_a_hybrid_has_an_exact_head_and_mass_one(data: st.DataObject) -> None:
    vocabulary = data.draw(st.integers(1, 200))
    k, draws = data.draw(st.integers(1, vocabulary)), data.draw(st.integers(1, 20))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    logits = 3 * torch.randn(5, vocabulary, generator=random)
    target = through(HybridCodec(vocabulary, k, draws, 32, 2.0), logits, torch.full((5,), 0.3), 2.0)
    exact = torch.log_softmax(logits.double() / 2, -1)
    head = target.ids[:, :k]
    torch.testing.assert_close(target.log_probs[:, :k].double(), exact.gather(1, head), rtol=0, atol=2e-5)
    total = dense(target, vocabulary).sum(-1)
    torch.testing.assert_close(total, torch.ones(5, dtype=torch.float64), rtol=0, atol=2e-6)
    drawn = target.log_probs[:, k:] > -torch.inf
    both = (target.ids[:, k:, None] == head[:, None, :]).any(-1)
    assert not (drawn & both).any(), "draws come only from tokens outside the head"


def test_a_forbidden_token_is_never_drawn() -> None:
    scores = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]).expand(1000, -1)
    assert set(draw(scores, grid(1000), 3).flatten().tolist()) == {1, 3}


def test_draws_come_from_the_flattened_distribution() -> None:
    logits = 4 * torch.randn(1, 30, generator=torch.Generator().manual_seed(1))
    mean = dense(through(SampledCodec(30, 4, 3.0), logits.expand(4000, -1), grid(4000), 3.0), 30).mean(0)
    torch.testing.assert_close(mean, torch.softmax(logits[0].double() / 3, -1), rtol=0, atol=1e-3)


def test_the_published_size() -> None:
    assert SampledCodec(49152).layout.record_bytes <= 48
    assert SampledCodec(128256).layout.record_bytes <= 54


@pytest.mark.parametrize("codec", [SampledCodec(50, 5), HybridCodec(50, 5, 5)])
def test_another_temperature_is_refused(codec: Drawing) -> None:
    with pytest.raises(UserError, match="temperature 2"):
        through(codec, torch.zeros(1, 50), torch.full((1,), 0.5), 2.0)


@pytest.mark.parametrize("codec", [SampledCodec(50, 5), HybridCodec(50, 5, 5)])
def test_logits_that_are_not_numbers_are_refused(codec: Drawing) -> None:
    with pytest.raises(UserError, match="not numbers"):
        through(codec, torch.full((1, 50), float("nan")), torch.full((1,), 0.5))


@pytest.mark.parametrize("settings", [{"draws": 0}, {"draws": 1 << 17}, {"temperature": 0.0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    for codec in (SampledCodec, HybridCodec):
        with pytest.raises(UserError):
            codec(50, **settings)  # type: ignore[arg-type]
