"""The bare matrix products of a loss head, which every way to compute it needs."""

from collections.abc import Callable

import torch

from benchmarks.problem import Problem
from potstill.training.memory import loss_budget

WHOLE, CHUNKED = "bare products, whole", "bare products, in chunks"


def bare(problem: Problem, with_teacher: bool) -> dict[str, Callable[[], object]]:
    """Two ways to compute the products: logits of student (and teacher), then the gradients for hidden states and head.

    One computes them whole, the other into preallocated memory in chunks of potstill's size. The faster is the scale.
    """
    hidden, weight, teacher_hidden, teacher_weight = (
        part.detach() for part in (problem.hidden, problem.weight, problem.teacher_hidden, problem.teacher_weight)
    )
    tokens, vocabulary = len(hidden), len(weight)
    row_bytes = vocabulary * hidden.element_size() * (2 if with_teacher else 1)
    count = -(-tokens // max(1, loss_budget(hidden.device, coming=0) * 7 // 8 // row_bytes))
    rows = -(-tokens // count)
    gradient = torch.rand(tokens, vocabulary, device=hidden.device).to(hidden.dtype)
    student, teacher = torch.empty(2, rows, vocabulary, dtype=hidden.dtype, device=hidden.device)

    def whole() -> object:
        kept = [hidden @ weight.T, gradient @ weight, gradient.T @ hidden]
        return [*kept, teacher_hidden @ teacher_weight.T] if with_teacher else kept

    def chunked() -> object:
        of_hidden, of_weight = torch.empty_like(hidden), torch.empty_like(weight)
        for first in range(0, tokens, rows):
            at = slice(first, first + rows)
            part = gradient[at]
            torch.mm(hidden[at], weight.T, out=student[: len(part)])
            if with_teacher:
                torch.mm(teacher_hidden[at], teacher_weight.T, out=teacher[: len(part)])
            torch.mm(part, weight, out=of_hidden[at])
            torch.addmm(of_weight, part.T, hidden[at], beta=0 if first == 0 else 1, out=of_weight)
        return of_hidden, of_weight

    return {WHOLE: whole, CHUNKED: chunked}
