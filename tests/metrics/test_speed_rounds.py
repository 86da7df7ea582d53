import pytest
import torch

from potstill.metrics import speed_rounds
from potstill.metrics.speed_rounds import SIZES, SpeedSizes, measure_rounds
from tiny import gpt2, llama

RATES = {"prefill", "prefill_batch", "decode", "decode_batch"}


@pytest.fixture
def clock(monkeypatch):
    """A clock that only advances while a model computes, by the seconds of each of its forwards."""
    now = [0.0]
    monkeypatch.setattr(speed_rounds.time, "perf_counter", lambda: now[0])
    return now


def _slow(model, clock, seconds):
    """The model, each of whose forwards takes so many seconds a token of the clock; and its forwards' shapes."""
    shapes = []

    def advance(_, args, kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        clock[0] += seconds * kwargs["input_ids"].numel()

    model.register_forward_pre_hook(advance, with_kwargs=True)
    return model, shapes


def test_rates_are_tokens_over_seconds(clock):
    teacher, shapes = _slow(llama(0), clock, 0.001)
    student, _ = _slow(gpt2(0), clock, 0.0005)
    found = measure_rounds({"teacher": teacher, "student": student})
    assert found.rounds == speed_rounds.ROUNDS
    assert found.rates.keys() == {"teacher", "student"}
    for name, rate in (("teacher", 1000), ("student", 2000)):
        assert found.rates[name].keys() == RATES
        for each in found.rates[name].values():
            assert each == pytest.approx((rate,) * speed_rounds.ROUNDS)
    assert (found.sizes.batch_size, found.sizes.prompt_tokens) in shapes
    assert (found.sizes.batch_size, 1) in shapes


@pytest.mark.parametrize(("seconds", "sizes"), [(1e-6, 0), (0.002, 1), (0.02, 4), (0.1, 5), (0.6, 5)])
def test_a_slow_machine_measures_smaller_sizes_and_fewer_rounds(clock, seconds, sizes):
    model, _ = _slow(gpt2(0), clock, seconds)
    model.config.max_position_embeddings = 10_000
    found = measure_rounds({"teacher": model})
    assert found.sizes == SIZES[sizes]
    assert clock[0] <= speed_rounds.LIMIT
    assert 1 <= found.rounds <= speed_rounds.ROUNDS
    assert all(len(each) == found.rounds for each in found.rates["teacher"].values())


def test_a_machine_that_is_far_too_slow_measures_nothing(clock):
    model, shapes = _slow(gpt2(0), clock, 10.0)
    assert measure_rounds({"teacher": model}) is None
    assert len(shapes) == 6, "two tries of a prompt, and two of two written tokens"


def test_prompts_fit_the_positions_of_every_model(clock):
    short, shapes = _slow(llama(0, max_position_embeddings=40), clock, 1e-6)
    teacher, _ = _slow(llama(1), clock, 1e-6)
    found = measure_rounds({"teacher": teacher, "student": short})
    assert found.sizes.prompt_tokens < 40
    assert max(length for _, length in shapes) < 40


def test_an_end_token_ends_no_measurement(clock):
    model = llama(0)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # the first id is the most probable one
    model.generation_config.eos_token_id = model.config.eos_token_id = 0
    model, shapes = _slow(model, clock, 1e-6)
    found = measure_rounds({"teacher": model})
    assert shapes.count((1, 1)) >= found.sizes.new_tokens * speed_rounds.ROUNDS


def test_memory_is_that_of_the_weights_and_of_a_batch():
    model = llama(0)
    weights = sum(4 * each.numel() for each in (*model.parameters(), *model.buffers()))
    one, other = (speed_rounds._memory(model, SpeedSizes(rows, 16, 4)) for rows in (2, 8))
    logits = 2 * 4 * model.config.vocab_size
    assert weights + logits < one < other


class OtherEngine:
    """A model of another engine: it has no weights in torch, and reads rows one by one."""

    device = torch.device("cpu")

    def __init__(self, clock):
        self.clock, self.config = clock, llama(0).config

    def parameters(self):
        return iter(())

    buffers = parameters

    def generate(self, input_ids, attention_mask, generation_config):
        assert attention_mask.shape == input_ids.shape
        self.clock[0] += 0.001 * input_ids.numel() * generation_config.max_new_tokens


def test_a_model_of_another_engine_is_measured_by_its_own_generate(clock):
    found = measure_rounds({"teacher": OtherEngine(clock)})
    assert found.memory == {"teacher": None}
    assert all(each == pytest.approx((1000,) * found.rounds) for each in found.rates["teacher"].values())
