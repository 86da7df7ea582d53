"""Hidden-state matching: how far a student's hidden states are from those of its teacher's layers, per token."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from potstill.words import UserError


def uniform_layer_map(student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
    """Each student layer with the teacher layer at the same relative depth, last with last, counted from 0.

    Jiao et al. 2019 (TinyBERT), arXiv:1909.10351, section 3.1: g(m) = m · M_teacher / M_student.

    Raises:
        UserError: a student with more layers than its teacher.
    """
    if not 0 < student_layers <= teacher_layers:
        raise UserError(f"a student of {student_layers} layers cannot be mapped onto a teacher of {teacher_layers}")
    return [(layer, (layer + 1) * teacher_layers // student_layers - 1) for layer in range(student_layers)]


class HiddenMatch(nn.Module):
    """The mean distance over pairs of layers, one number per token.

    ``mse``: mean over H of (W s - t)², Romero et al. 2014 (FitNets), arXiv:1412.6550, equation 3.
    ``cosine``: 1 - cos(W s, t), Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 3.

    W is learned with the student, one for each pair, and is left out where both have the same hidden size.

    Raises:
        UserError: no pairs, a pair of layers that do not exist, or an unknown distance.
    """

    def __init__(
        self,
        layer_map: Sequence[tuple[int, int]],
        student_size: int,
        teacher_size: int,
        distance: Literal["mse", "cosine"] = "mse",
    ) -> None:
        super().__init__()
        if not layer_map:
            raise UserError("layer_map is empty: name at least one pair of layers")
        if distance not in ("mse", "cosine"):
            raise UserError(f"there is no distance {distance!r} between hidden states: use mse or cosine")
        self.layer_map = [(student, teacher) for student, teacher in layer_map]
        self.distance = distance
        same = student_size == teacher_size
        self.projectors = nn.ModuleList(
            nn.Identity() if same else nn.Linear(student_size, teacher_size, bias=False) for _ in self.layer_map
        )

    def forward(
        self, student: Sequence[Float[Tensor, "N Hs"]], teacher: Sequence[Float[Tensor, "N Ht"]]
    ) -> Float[Tensor, "N"]:
        """``student`` and ``teacher`` hold each layer's output at supervised tokens, the embeddings' not among them."""
        for student_layer, teacher_layer in self.layer_map:
            if not (0 <= student_layer < len(student) and 0 <= teacher_layer < len(teacher)):
                raise UserError(
                    f"layer_map names the pair {student_layer}, {teacher_layer}, but there are {len(student)} and "
                    f"{len(teacher)} layers, counted from 0"
                )
        distances = [
            self._distance(project(student[of_student]), teacher[of_teacher].detach())
            for (of_student, of_teacher), project in zip(self.layer_map, self.projectors, strict=True)
        ]
        return torch.stack(distances).mean(0)

    def _distance(self, student: Float[Tensor, "N H"], teacher: Float[Tensor, "N H"]) -> Float[Tensor, "N"]:
        dtype = torch.promote_types(student.dtype, torch.float32)
        student, teacher = student.to(dtype), teacher.to(dtype)
        if self.distance == "mse":
            return (student - teacher).square().mean(-1)
        return 1 - nn.functional.cosine_similarity(student, teacher, dim=-1)
