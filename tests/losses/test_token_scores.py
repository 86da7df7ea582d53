import torch
from hypothesis import given, settings

from potstill.losses.loss import Loss
from potstill.losses.teacher_target import MixedTarget, SparseTarget
from potstill.losses.token_scores import score_tokens

from .cases import Case, cases
from .naive import logits_of, per_token, teacher_log_probs


@settings(max_examples=100)
@given(cases())
def test_scores_are_those_of_the_reference(case: Case) -> None:
    shared = case.vocabulary or len(case.head.weight)
    scores = score_tokens(
        case.hidden, case.head, case.labels, case.target, vocabulary=case.vocabulary, memory_budget=case.memory_budget
    )
    logits = logits_of(case.hidden, case.head, shared)
    sparse = [t for t in getattr(case.target, "targets", (case.target,)) if isinstance(t, SparseTarget)]
    temperature = sparse[0].temperature if sparse else 1.0
    divergence = per_token(Loss("forward_kl", 1.0, temperature), logits, case.labels, case.target, shared)
    torch.testing.assert_close(scores["forward_kl"], divergence / temperature**2, rtol=1e-8, atol=1e-10)
    nll = torch.nn.functional.cross_entropy(logits, case.labels, reduction="none")
    torch.testing.assert_close(scores["nll"], nll, rtol=1e-8, atol=1e-10)
    if not sparse:
        log_q = teacher_log_probs(case.target, 1.0, shared)
        assert torch.equal(scores["agreement"], logits.argmax(-1) == log_q.argmax(-1))
        torch.testing.assert_close(scores["teacher_nll"], -log_q.gather(1, case.labels[:, None])[:, 0])
    elif not isinstance(case.target, MixedTarget) and not case.target.sampled:  # type: ignore[union-attr]
        best = sparse[0].ids.gather(1, sparse[0].log_probs.argmax(-1, keepdim=True))[:, 0]
        assert torch.equal(scores["agreement"], logits.argmax(-1) == best)
    assert not any(score.requires_grad for score in scores.values())


def test_without_a_teacher_and_from_logits() -> None:
    logits, labels = torch.randn(5, 9), torch.arange(5)
    scores = score_tokens(logits, None, labels)
    assert set(scores) == {"nll"}
    torch.testing.assert_close(scores["nll"], torch.nn.functional.cross_entropy(logits, labels, reduction="none"))


def test_no_tokens() -> None:
    assert score_tokens(torch.zeros(0, 9), None, torch.zeros(0, dtype=torch.long))["nll"].shape == (0,)
