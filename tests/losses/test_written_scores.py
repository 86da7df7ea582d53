import json

import pytest
import torch
from hypothesis import given, settings

from potstill.errors import UserError
from potstill.losses.divergences import FLOOR, forward_kl, reverse_kl
from potstill.losses.teacher_target import (
    GroupedTarget,
    HiddenTarget,
    LogitsTarget,
    MixedTarget,
    SpanTarget,
    TokenGroup,
    rows_of,
)
from potstill.losses.written_scores import LIKELIEST, NAMES, score_written
from potstill.models.head import Head

from .cases import Case, cases
from .naive import logits_of, teacher_log_probs


@settings(max_examples=100)
@given(cases(["logits", "hidden", "probabilities", "mixed_logits"], ["reverse_kl"]))
def test_scores_are_those_of_the_reference(case: Case) -> None:
    shared = case.vocabulary or len(case.head.weight)
    found = score_written(
        HiddenTarget(case.hidden, case.head),
        case.labels,
        case.target,
        vocabulary=case.vocabulary,
        memory_budget=case.memory_budget,
    )
    log_p = logits_of(case.hidden, case.head, shared).log_softmax(-1).detach()
    log_q = teacher_log_probs(case.target, 1.0, shared).double()
    likeliest = [log.argsort(descending=True)[:, :LIKELIEST].tolist() for log in (log_p, log_q)]
    expected = {
        "student_log_probs": log_p.gather(1, case.labels[:, None])[:, 0],
        "teacher_log_probs": log_q.gather(1, case.labels[:, None])[:, 0],
        "reverse_kl": reverse_kl(log_p, log_q),
        "forward_kl": forward_kl(log_p, log_q),
        "entropy": torch.special.entr(log_p.exp()).sum(-1),
        "overlap": torch.tensor([len({*a} & {*b}) / len(a) for a, b in zip(*likeliest, strict=True)]),
    }
    assert set(found) == set(expected) == set(NAMES)
    for name, values in expected.items():
        torch.testing.assert_close(found[name].double(), values.double(), rtol=1e-7, atol=1e-7)
        assert not found[name].requires_grad


def test_a_student_is_its_own_teacher() -> None:
    student = HiddenTarget(torch.randn(50, 8), Head(4 * torch.randn(300, 8)))
    scores = score_written(student, torch.arange(50), student)
    assert not scores["reverse_kl"].any()
    assert not scores["forward_kl"].any()
    assert (scores["overlap"] == 1).all()
    assert torch.equal(scores["student_log_probs"], scores["teacher_log_probs"])


@pytest.mark.parametrize("of_student", [[], [3], list(range(12)), list(range(1, 20))])
@pytest.mark.parametrize("of_teacher", [[], [3], list(range(12)), list(range(19))])
def test_impossible_tokens_make_finite_numbers(of_student: list[int], of_teacher: list[int]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 20)
    logits[0, :, of_student] = -torch.inf
    logits[1, :, of_teacher] = -torch.inf
    scores = score_written(LogitsTarget(logits[0]), torch.tensor([0, 3, 11, 19]), LogitsTarget(logits[1]))
    for values in scores.values():
        assert torch.isfinite(values).all()
        json.dumps(values.tolist(), allow_nan=False)
    assert min(values.min() for values in (scores["overlap"], scores["entropy"])) >= 0
    assert scores["overlap"].max() <= 1
    if 3 in of_teacher:
        assert scores["teacher_log_probs"][1] == FLOOR


def test_the_overlap_leaves_impossible_tokens_out() -> None:
    """Both models allow ids 2 to 4 only. The others would fill up the 16 likeliest ids."""
    logits = torch.full((1, 40), -torch.inf)
    logits[:, 2:5] = torch.tensor([1.0, 2.0, 3.0])
    wide = torch.zeros(1, 40)
    wide[:, 4:20] = 5.0
    labels = torch.tensor([2])

    def overlap(student: torch.Tensor, teacher: torch.Tensor) -> float:
        return float(score_written(LogitsTarget(student), labels, LogitsTarget(teacher))["overlap"])

    assert overlap(logits, logits.flip(0)) == 1
    assert overlap(logits, wide) == pytest.approx(1 / 3)
    assert overlap(wide, logits) == pytest.approx(1 / 16)


def test_autocast_counts() -> None:
    student = HiddenTarget(torch.randn(5, 8), Head(torch.randn(30, 8)))
    with torch.autocast("cpu", torch.bfloat16):
        found = score_written(student, torch.arange(5), student)["student_log_probs"]
    logits = (student.hidden.bfloat16() @ student.head.weight.bfloat16().T).float()
    torch.testing.assert_close(found, logits.log_softmax(-1).diagonal())


def test_no_tokens() -> None:
    nothing = LogitsTarget(torch.zeros(0, 9))
    scores = score_written(nothing, torch.zeros(0, dtype=torch.long), nothing)
    assert {name: values.shape for name, values in scores.items()} == dict.fromkeys(NAMES, (0,))


def test_heads_of_other_sizes_need_the_ids_that_they_share() -> None:
    student, teacher, labels = LogitsTarget(torch.randn(4, 9)), LogitsTarget(torch.randn(4, 12)), torch.arange(4)
    with pytest.raises(UserError, match="say how many ids they share"):
        score_written(student, labels, teacher)
    found = score_written(student, labels, teacher, vocabulary=8)
    expected = score_written(LogitsTarget(student.logits[:, :8]), labels, LogitsTarget(teacher.logits[:, :8]))
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name])


def test_of_a_teacher_of_other_tokens_only_the_student_is_told() -> None:
    torch.manual_seed(0)
    logits, labels, none = torch.randn(5, 7), torch.randint(7, (5,)), torch.zeros(0, dtype=torch.int64)
    spans = SpanTarget(none.view(0, 2), none.bool(), none, none.float(), none.bool(), torch.zeros(7).bool(), 5)
    student = LogitsTarget(logits)
    for target in (spans, MixedTarget((spans, spans), (0.5, 0.5))):
        found, whole = score_written(student, labels, target), score_written(student, labels, student)
        assert set(found) == {"student_log_probs", "entropy"}
        assert all(torch.equal(values, whole[name]) for name, values in found.items())
    groups = GroupedTarget((TokenGroup(3, rows_of(spans, 0, 3)), TokenGroup(2, rows_of(spans, 3, 5))))
    assert torch.equal(score_written(student, labels, groups)["entropy"], whole["entropy"])


@pytest.mark.parametrize("spans_first", [True, False])
def test_of_rows_with_different_teachers_only_what_all_have_is_told(spans_first) -> None:
    torch.manual_seed(0)
    labels, none = torch.randint(7, (5,)), torch.zeros(0, dtype=torch.int64)
    student, teacher = LogitsTarget(torch.randn(5, 7)), LogitsTarget(torch.randn(5, 7))
    spans = SpanTarget(none.view(0, 2), none.bool(), none, none.float(), none.bool(), torch.zeros(7).bool(), 5)
    first, second = (spans, teacher) if spans_first else (teacher, spans)
    groups = GroupedTarget((TokenGroup(3, rows_of(first, 0, 3)), TokenGroup(2, rows_of(second, 3, 5))))
    found, whole = score_written(student, labels, groups), score_written(student, labels, teacher)
    assert set(found) == {"student_log_probs", "entropy"}
    for name, values in found.items():
        torch.testing.assert_close(values, whole[name])
