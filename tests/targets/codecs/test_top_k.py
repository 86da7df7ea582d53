import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, SparseTarget
from potstill.models.head import Head
from potstill.targets import TopKCodec
from potstill.targets.codecs.layout import RANGE
from potstill.targets.codecs.logit_rows import apply_head
from potstill.targets.codecs.top_k import top_k

NONE = torch.empty(0)


def through(codec: TopKCodec, logits: torch.Tensor, temperature: float = 1.0) -> SparseTarget:
    packed = codec.encode(LogitsTarget(logits), NONE)
    assert packed.shape == (len(logits), codec.layout.record_bytes)
    return codec.decode(packed, temperature)


def mass(target: SparseTarget) -> torch.Tensor:
    return target.log_probs.double().exp().sum(-1) + target.log_tail.double().exp()


@given(st.data())
@settings(max_examples=60)
def test_the_likeliest_are_kept_and_the_tail_is_exact_at_every_temperature(data: st.DataObject) -> None:
    vocabulary = data.draw(st.integers(1, 300) | st.sampled_from([49152, 151936]))
    k = data.draw(st.integers(1, min(vocabulary, 80)))
    bits = data.draw(st.sampled_from([8, 16, 32]))
    temperatures = tuple(data.draw(st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=1, unique=True)))
    scale = data.draw(st.sampled_from([0.1, 3.0, 10.0]))
    seed = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    logits = scale * torch.randn(3, vocabulary, generator=seed)
    for temperature in temperatures:
        target = through(TopKCodec(vocabulary, k, bits, temperatures), logits, temperature)
        exact = torch.log_softmax(logits.double() / temperature, -1)
        assert torch.equal(logits.gather(1, target.ids).sort(descending=True).values, logits.topk(k).values)
        tail = exact.scatter(1, target.ids, -torch.inf).logsumexp(-1)
        torch.testing.assert_close(target.log_tail.double(), tail, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mass(target), torch.ones(3, dtype=torch.float64), rtol=0, atol=2e-6)
        step = {8: 0.4, 16: 0.002, 32: 1e-5}[bits] / temperature
        coded = (logits - logits.amax(-1, keepdim=True)).gather(1, target.ids) > -RANGE
        assert ((target.log_probs - exact.gather(1, target.ids)).abs() * coded).max() < step + 1e-5


@given(st.integers(1, 200), st.integers(0, 2**32))
@settings(max_examples=20)
def test_everything_kept_in_32_bits_is_the_live_teacher(vocabulary: int, seed: int) -> None:
    logits = 5 * torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(seed))
    target = through(TopKCodec(vocabulary, vocabulary, 32), logits)
    assert torch.equal(target.ids, torch.arange(vocabulary).expand(4, -1))
    torch.testing.assert_close(target.log_probs, torch.log_softmax(logits, -1), rtol=1e-6, atol=2e-6)
    assert (target.log_tail == -torch.inf).all()


@given(st.data())
@settings(max_examples=100)
def test_of_equal_logits_the_lower_ids_are_kept(data: st.DataObject) -> None:
    """As a stable sort has it, with few different values, as bfloat16 gives them; and with forbidden tokens."""
    vocabulary = data.draw(st.integers(1, 400) | st.sampled_from([5000, 49152]))
    k = data.draw(st.integers(1, min(vocabulary, 80)))
    values = data.draw(st.sampled_from([1, 2, 5, 300]))
    seed = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    logits = torch.randint(-values, values + 1, (4, vocabulary), generator=seed).float() / 8
    logits[0, torch.rand(vocabulary, generator=seed) < 0.5] = -torch.inf
    expected = logits.sort(dim=-1, descending=True, stable=True).indices[:, :k].sort(-1).values
    kept, ids = top_k(logits, k)
    assert torch.equal(ids, expected)
    assert torch.equal(kept, logits.gather(-1, expected))


def test_a_targets_own_logits_are_not_overwritten() -> None:
    logits = torch.randn(5, 300)
    before = logits.clone()
    through(TopKCodec(300, 10), logits)
    assert torch.equal(logits, before)


def test_a_tail_of_a_billionth_is_not_rounded_away() -> None:
    logits = torch.full((1, 1000), -30.0)
    logits[0, 7] = 0.0
    tail = through(TopKCodec(1000, 1), logits).log_tail
    assert tail.item() == pytest.approx(torch.tensor(999.0).log().item() - 30, abs=1e-4)


def test_tokens_that_the_teacher_forbids_stay_forbidden() -> None:
    logits = torch.tensor([[1.0, -torch.inf, 2.0, -torch.inf]])
    target = through(TopKCodec(4, 3), logits)
    allowed = target.ids[target.log_probs > -torch.inf]
    assert sorted(allowed.tolist()) == [0, 2]
    assert target.log_tail.item() == -torch.inf
    torch.testing.assert_close(mass(target), torch.ones(1, dtype=torch.float64))


def test_logits_and_hidden_states_with_their_head_give_the_same_records() -> None:
    hidden, head = torch.randn(50, 8), Head(torch.randn(100, 8), torch.randn(100), 0.3, 5.0)
    codec = TopKCodec(100, 10)
    logits = apply_head(head, hidden)
    torch.testing.assert_close(logits, 5 * torch.tanh(0.3 * (hidden @ head.weight.T + head.bias) / 5))
    live = codec.encode(HiddenTarget(hidden, head), NONE)
    assert torch.equal(live, codec.encode(LogitsTarget(logits), NONE))


def test_records_do_not_depend_on_how_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, codec = torch.randn(37, 500), TopKCodec(500, 10)
    whole = codec.encode(LogitsTarget(logits), NONE)
    monkeypatch.setattr("potstill.targets.codecs.logit_rows.LOGITS_PER_CHUNK", 1500)
    monkeypatch.setattr("potstill.targets.codecs.logit_rows.LOGITS_PER_HEAD_CALL", 4000)
    assert torch.equal(codec.encode(LogitsTarget(logits), NONE), whole)


def test_no_tokens_make_no_records() -> None:
    assert through(TopKCodec(50, 5), torch.empty(0, 50)).ids.shape == (0, 5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_are_refused(bad: float) -> None:
    logits = torch.zeros(3, 50)
    logits[1, 3] = bad
    with pytest.raises(UserError, match="not numbers"):
        through(TopKCodec(50, 5), logits)


def test_another_vocabulary_is_refused_with_both_sizes() -> None:
    with pytest.raises(UserError, match=r"51 logits.* 50"):
        through(TopKCodec(50, 5), torch.zeros(1, 51))


def test_another_temperature_is_refused_with_both() -> None:
    with pytest.raises(UserError, match=r"temperature 1, 2, .* temperature 3"):
        through(TopKCodec(50, 5, temperatures=(1.0, 2.0)), torch.zeros(1, 50), 3.0)


@pytest.mark.parametrize(
    "settings",
    [{"k": 0}, {"k": 51}, {"bits": 4}, {"temperatures": ()}, {"temperatures": (0.0,)}, {"temperatures": (1.0, 1.0)}],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UserError):
        TopKCodec(50, **settings)  # type: ignore[arg-type]


def test_a_vocabulary_above_a_million_is_refused() -> None:
    with pytest.raises(UserError, match="1048577"):
        TopKCodec((1 << 20) + 1)


@pytest.mark.parametrize("told", [3, 5, 8])
def test_what_a_served_teacher_tells_is_kept_with_the_mass_that_it_does_not(told: int) -> None:
    """A served teacher may give fewer tokens than are kept, as many, or more: probabilities stay and sum to 1."""
    exact = torch.log_softmax(3 * torch.randn(20, 50, generator=torch.Generator().manual_seed(0)) / 2, -1)
    log_probs, ids = exact.topk(told)
    tail = exact.scatter(1, ids, -torch.inf).logsumexp(-1)
    codec = TopKCodec(50, 5, 32, (2.0,))
    read = codec.decode(codec.encode(SparseTarget(ids, log_probs, tail, 2.0), NONE), 2.0)
    torch.testing.assert_close(mass(read), torch.ones(20, dtype=torch.float64), rtol=0, atol=1e-6)
    kept = read.log_probs > -torch.inf
    assert (kept.sum(-1) == min(told, 5)).all()
    torch.testing.assert_close(read.log_probs[kept], exact.gather(1, read.ids)[kept], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(read.log_probs.max(-1).values, exact.max(-1).values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 32])
def test_a_target_of_which_nothing_is_known_stays_one_category(bits: int) -> None:
    log_probs = torch.tensor([[-torch.inf, -torch.inf], [-1.0, -torch.inf]])
    tail = torch.log1p(-log_probs.exp().sum(-1))
    codec = TopKCodec(50, 2, bits)
    read = codec.decode(codec.encode(SparseTarget(torch.tensor([[0, 0], [7, 0]]), log_probs, tail, 1.0), NONE))
    assert (read.log_probs[0] == -torch.inf).all()
    assert read.log_tail[0] == 0
    assert read.log_probs[1].max() == pytest.approx(-1.0, abs=1e-6)


def test_mass_that_nothing_has_is_refused() -> None:
    log_probs, tail = torch.full((1, 2), -torch.inf), torch.full((1,), -1.0)
    with pytest.raises(UserError, match="not numbers"):
        TopKCodec(50, 2).encode(SparseTarget(torch.zeros(1, 2).long(), log_probs, tail, 1.0), NONE)


def test_what_a_served_teacher_does_not_tell_is_refused() -> None:
    target = SparseTarget(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1), torch.full((1,), -torch.inf))
    with pytest.raises(UserError, match="temperature"):
        TopKCodec(50, 1, temperatures=(1.0, 2.0)).encode(target, NONE)
    with pytest.raises(UserError, match="random ones"):
        TopKCodec(50, 1).encode(SparseTarget(target.ids, target.log_probs, target.log_tail, 1.0, True), NONE)
