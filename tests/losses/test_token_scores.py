import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.losses import token_scores
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, leaves
from potstill.losses.token_scores import most_probable, score_side_by_side, score_tokens
from potstill.models.head import Head

from .cases import Case, cases
from .naive import logits_of, per_token, teacher_log_probs, teacher_logits

DENSE = ["logits", "hidden", "probabilities", "mixed_logits"]


@settings(max_examples=100)
@given(cases(DENSE, ["forward_kl"]), st.booleans())
def test_scores_are_those_of_the_reference(case: Case, teachers_are_scored: bool) -> None:
    shared = case.vocabulary or len(case.head.weight)
    models = [HiddenTarget(case.hidden, case.head), LogitsTarget(logits_of(case.hidden, case.head, shared).flip(0))]
    logits = [logits_of(case.hidden, case.head, shared), models[1].logits]
    if teachers_are_scored:
        models += leaves(case.target)
        logits += [teacher_logits(leaf, shared).double() for leaf in leaves(case.target)]
    found = score_side_by_side(
        models, case.labels, case.target, vocabulary=case.vocabulary, memory_budget=case.memory_budget
    )
    log_q = teacher_log_probs(case.target, 1.0, shared)
    for scores, own in zip(found, logits, strict=True):
        nll = torch.nn.functional.cross_entropy(own, case.labels, reduction="none")
        torch.testing.assert_close(scores["nll"], nll, rtol=1e-8, atol=1e-10)
        divergence = per_token(Loss("forward_kl"), own, case.labels, case.target, shared)
        torch.testing.assert_close(scores["forward_kl"], divergence, rtol=1e-8, atol=1e-10)
        assert torch.equal(scores["agreement"], own.argmax(-1) == log_q.argmax(-1))
        assert not any(score.requires_grad for score in scores.values())


def test_a_teacher_is_at_no_distance_from_itself() -> None:
    teacher = HiddenTarget(torch.randn(50, 8), Head(4 * torch.randn(300, 8)))
    (scores,) = score_side_by_side([teacher], torch.arange(50), teacher)
    assert scores["forward_kl"].abs().max() == 0
    assert scores["agreement"].all()


def test_an_impossible_token_of_the_teacher_adds_nothing() -> None:
    logits = torch.randn(4, 9)
    impossible = logits.index_fill(1, torch.tensor([3]), -torch.inf)
    (scores,) = score_side_by_side([LogitsTarget(logits)], torch.arange(4), LogitsTarget(impossible))
    expected = -torch.log1p(-logits.softmax(-1)[:, 3])
    torch.testing.assert_close(scores["forward_kl"], expected)


def test_a_token_that_is_impossible_for_teacher_and_model_adds_nothing() -> None:
    teacher, student = torch.randn(2, 4, 9).index_fill(2, torch.tensor([3]), -torch.inf)
    of_teacher, labels = LogitsTarget(teacher), torch.tensor([0, 1, 2, 4])
    scores = score_side_by_side([of_teacher, LogitsTarget(student), LogitsTarget(teacher.clone())], labels, of_teacher)
    possible = [torch.cat([one[:, :3], one[:, 4:]], 1).log_softmax(-1) for one in (teacher, student)]
    expected = (possible[0].exp() * (possible[0] - possible[1])).sum(-1)
    for own, value in zip(scores, (torch.zeros(4), expected, torch.zeros(4)), strict=True):
        torch.testing.assert_close(own["forward_kl"], value)


def test_each_model_s_logits_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, plain = [], token_scores.teacher_products

    def count(target, *options):  # type: ignore[no-untyped-def]
        made.append(target)
        return plain(target, *options)

    monkeypatch.setattr(token_scores, "teacher_products", count)
    teacher, student = (HiddenTarget(torch.randn(5, 3), Head(torch.randn(9, 3))) for _ in range(2))
    score_side_by_side([teacher, student, student], torch.arange(5), teacher)
    assert len({id(one) for one in made}) == len(made) == 2


def test_without_a_teacher_and_from_logits() -> None:
    logits, labels = torch.randn(5, 9), torch.arange(5)
    scores = score_tokens(logits, None, labels)
    assert set(scores) == {"nll"}
    torch.testing.assert_close(scores["nll"], torch.nn.functional.cross_entropy(logits, labels, reduction="none"))


def test_no_tokens() -> None:
    empty = LogitsTarget(torch.zeros(0, 9))
    assert score_tokens(torch.zeros(0, 9), None, torch.zeros(0, dtype=torch.long))["nll"].shape == (0,)
    (scores,) = score_side_by_side([empty], torch.zeros(0, dtype=torch.long), empty)
    assert {name: score.shape for name, score in scores.items()} == dict.fromkeys(
        ("nll", "forward_kl", "agreement"), (0,)
    )


def test_heads_of_other_sizes_need_the_ids_that_they_share() -> None:
    wide, narrow, labels = LogitsTarget(torch.randn(4, 12)), LogitsTarget(torch.randn(4, 9)), torch.arange(4)
    with pytest.raises(UserError, match="say how many ids they share"):
        score_side_by_side([narrow], labels, wide)
    cut = LogitsTarget(wide.logits[:, :9])
    for scores, own in zip(score_side_by_side([narrow, wide], labels, wide, vocabulary=9), (narrow, cut), strict=True):
        (expected,) = score_side_by_side([own], labels, cut)
        for name, values in expected.items():
            torch.testing.assert_close(scores[name], values)


def test_of_several_greatest_logits_the_first_counts() -> None:
    torch.manual_seed(0)
    # Of so many numbers of so few bits, many are equal.
    logits = torch.randn(200, 500).bfloat16().float().round(decimals=1)
    assert ((logits == logits.amax(-1, keepdim=True)).sum(-1) > 1).any()
    assert torch.equal(most_probable(logits), logits.argmax(-1))


PEAKS = """
import json, resource
import torch
from potstill.losses.teacher_target import HiddenTarget
from potstill.losses.token_scores import score_side_by_side
from potstill.models.head import Head

torch.set_num_threads(1)
head = Head(torch.randn(152_000, 8))

def peak(tokens):
    models = [HiddenTarget(torch.randn(tokens, 8), head) for _ in range(3)]
    score_side_by_side(models, torch.randint(152_000, (tokens,)), models[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

print(json.dumps([peak(64), peak(600)]))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_tokens():
    """It grew by 1.3 GB here: the scores of each block lay where the logits of the one before had been."""
    # A forked process has the gaps of the heap that it comes from.
    told = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    before, after = json.loads(told.stdout.splitlines()[-1])
    assert after - before < 300, "MiB"
