from itertools import pairwise

import pytest
import torch

from potstill.losses.sparse_scores import score_beside_sparse
from potstill.losses.teacher_target import LogitsTarget, MixedTarget, SparseTarget
from potstill.losses.token_scores import score_side_by_side
from potstill.losses.written_scores import NAMES, score_written

N, V = 7, 40


def logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(N, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sparse(scores: torch.Tensor, k: int, labels: torch.Tensor) -> SparseTarget:
    """The k likeliest tokens and the label's."""
    log_q = scores.log_softmax(-1)
    kept, ids = log_q.topk(k)
    own = log_q.gather(1, labels[:, None]).masked_fill((ids == labels[:, None]).any(-1, keepdim=True), -torch.inf)
    ids, kept = torch.cat([ids, labels[:, None]], 1), torch.cat([kept, own], 1)
    return SparseTarget(ids, kept, torch.log1p(-kept.exp().sum(-1).clamp(max=1)))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.randint(V, (N,), generator=torch.Generator().manual_seed(9))


def test_a_teacher_that_tells_all_scores_as_a_whole_one(labels):
    teacher, student = logits(0), LogitsTarget(logits(1).float())
    found = score_beside_sparse([student], labels, sparse(teacher, V, labels))[0]
    wanted = score_side_by_side([student], labels, LogitsTarget(teacher.float()))[0]
    for name in wanted:
        torch.testing.assert_close(found[name].double(), wanted[name].double(), rtol=1e-4, atol=1e-5)


def test_kl_is_that_on_categories_and_grows_with_what_is_told(labels):
    teacher, student = logits(0), LogitsTarget(logits(1).float())
    kl = [score_beside_sparse([student], labels, sparse(teacher, k, labels))[0]["forward_kl"] for k in (1, 4, 16, V)]
    assert all((less <= more + 1e-5).all() for less, more in pairwise(kl))
    log_q, log_p = teacher.log_softmax(-1)[0], student.logits[0].double().log_softmax(-1)
    kept = sorted({int(log_q.argmax()), int(labels[0])})
    rest = [id for id in range(V) if id not in kept]
    groups = [[id] for id in kept] + [rest]
    q, p = (torch.stack([one.exp()[group].sum() for group in groups]) for one in (log_q, log_p))
    torch.testing.assert_close(kl[0][0].double(), (q * (q / p).log()).sum(), rtol=1e-5, atol=1e-6)


def test_the_teachers_own_loss_is_exact(labels):
    teacher = logits(0)
    target = sparse(teacher, 2, labels)
    found = score_beside_sparse([target], labels, target)[0]
    torch.testing.assert_close(found["nll"].double(), -teacher.log_softmax(-1).gather(1, labels[:, None])[:, 0])


def test_an_ensemble_is_compared_on_what_all_tell(labels):
    first, second, student = logits(0), logits(2), LogitsTarget(logits(1).float())
    whole = LogitsTarget(second.float())
    mixture = MixedTarget((sparse(first, V, labels), whole), (0.25, 0.75))
    found = score_beside_sparse([student], labels, mixture)[0]
    wanted = score_side_by_side([student], labels, MixedTarget((LogitsTarget(first.float()), whole), (0.25, 0.75)))[0]
    for name in wanted:
        torch.testing.assert_close(found[name].double(), wanted[name].double(), rtol=1e-4, atol=1e-5)
    partly = MixedTarget((sparse(first, 8, labels), sparse(second, 8, labels)), (0.25, 0.75))
    assert (score_beside_sparse([student], labels, partly)[0]["forward_kl"] <= wanted["forward_kl"] + 1e-5).all()


def test_written_tokens_are_scored_beside_a_sparse_teacher(labels):
    teacher, student = logits(0), LogitsTarget(logits(1).float())
    found = score_written(student, labels, sparse(teacher, V, labels))
    wanted = score_written(student, labels, LogitsTarget(teacher.float()))
    for name in NAMES:
        torch.testing.assert_close(found[name].double(), wanted[name].double(), rtol=1e-4, atol=1e-5)
    fewer = score_written(student, labels, sparse(teacher, 4, labels))
    assert (fewer["reverse_kl"] <= wanted["reverse_kl"] + 1e-5).all()
    torch.testing.assert_close(
        fewer["teacher_log_probs"], wanted["teacher_log_probs"], check_dtype=False, rtol=1e-5, atol=1e-5
    )
