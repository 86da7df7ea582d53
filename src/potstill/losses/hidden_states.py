"""Hidden-state matching: the distance per token between hidden states of the student's and the teacher's layers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from potstill.errors import UserError

DISTANCES = ("mse", "cosine")


@dataclass(frozen=True)
class HiddenLoss:
    """One loss term: ``weight`` times the sum over supervised tokens of the distance between layers.

    Args:
        weight: the factor of the distance in the sum of losses.
        distance: ``mse`` or ``cosine``; see :class:`HiddenDistance`.
        layers: pairs of a student's and a teacher's layer, counted from 0; or ``uniform``, see ``uniform_layer_map``.

    Raises:
        UserError: a value out of its range.
    """

    weight: float = 1.0
    distance: Literal["mse", "cosine"] = "mse"
    layers: Literal["uniform"] | Sequence[tuple[int, int]] = "uniform"
    kind: ClassVar[str] = "hidden_match"

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise UserError(f"{self.kind}: weight must be a number of at least 0, not {self.weight}")
        if self.distance not in DISTANCES:
            raise UserError(f"{self.kind}: there is no distance {self.distance!r}; use {' or '.join(DISTANCES)}")
        if isinstance(self.layers, str):
            if self.layers != "uniform":
                raise UserError(f"{self.kind}: layers is {self.layers!r}; give pairs of layers, or uniform")
        elif not self.layers or any(len(pair) != 2 for pair in self.layers):
            raise UserError(f"{self.kind}: layers must be pairs of a student's and a teacher's, not {self.layers}")

    def layer_map(self, student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
        """The pairs of layers, for a student and a teacher of these depths.

        Raises:
            UserError: a layer that does not exist, or a student too deep for a uniform map.
        """
        if isinstance(self.layers, str):
            return uniform_layer_map(student_layers, teacher_layers)
        for student, teacher in self.layers:
            if not (0 <= student < student_layers and 0 <= teacher < teacher_layers):
                raise UserError(
                    f"{self.kind}: layers has the pair {student}, {teacher}, but the student has {student_layers} "
                    f"layers and the teacher {teacher_layers}, counted from 0"
                )
        return [(student, teacher) for student, teacher in self.layers]


def uniform_layer_map(student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
    """Pairs each student layer with the teacher layer at the same relative depth, the last with the last, from 0.

    Jiao et al. 2019 (TinyBERT), arXiv:1909.10351, section 3.1: g(m) = m · M_teacher / M_student.

    Raises:
        UserError: a student with more layers than its teacher.
    """
    if not 0 < student_layers <= teacher_layers:
        raise UserError(f"a student of {student_layers} layers cannot be mapped onto a teacher of {teacher_layers}")
    return [(layer, (layer + 1) * teacher_layers // student_layers - 1) for layer in range(student_layers)]


class HiddenDistance(nn.Module):
    """The mean distance over pairs of layers, one number per token.

    ``mse``: mean over H of (W s - t)², Romero et al. 2014 (FitNets), arXiv:1412.6550, equation 3.
    ``cosine``: 1 - cos(W s, t), Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 3.

    Each pair has a projector W, which is learned with the student. Models of the same hidden size have no projector.

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
        if distance not in DISTANCES:
            raise UserError(f"there is no distance {distance!r} between hidden states: use mse or cosine")
        self.layer_map = [(student, teacher) for student, teacher in layer_map]
        self.distance = distance
        same = student_size == teacher_size
        self.projectors = nn.ModuleList(
            nn.Identity() if same else nn.Linear(student_size, teacher_size, bias=False) for _ in self.layer_map
        )

    def forward(
        self,
        student: Sequence[Float[Tensor, "N Hs"]] | Mapping[int, Float[Tensor, "N Hs"]],
        teacher: Sequence[Float[Tensor, "N Ht"]] | Mapping[int, Float[Tensor, "N Ht"]],
    ) -> Float[Tensor, "N"]:
        """The distance per token. ``student`` and ``teacher`` hold each layer's output at supervised tokens.

        Layer 0 is the first layer after the embeddings.
        """
        for student_layer, teacher_layer in self.layer_map:
            if student_layer not in _numbers(student) or teacher_layer not in _numbers(teacher):
                raise UserError(
                    f"layer_map names the pair {student_layer}, {teacher_layer}, but there are {len(student)} and "
                    f"{len(teacher)} layers, counted from 0"
                )
        distances = [
            self._distance(_projected(student[of_student], project), teacher[of_teacher].detach())
            for (of_student, of_teacher), project in zip(self.layer_map, self.projectors, strict=True)
        ]
        return torch.stack(distances).mean(0)

    def _distance(self, student: Float[Tensor, "N H"], teacher: Float[Tensor, "N H"]) -> Float[Tensor, "N"]:
        dtype = torch.promote_types(student.dtype, torch.float32)
        student, teacher = student.to(dtype), teacher.to(dtype)
        if self.distance == "mse":
            return (student - teacher).square().mean(-1)
        return 1 - nn.functional.cosine_similarity(student, teacher, dim=-1)


def _projected(student: Float[Tensor, "N Hs"], project: nn.Module) -> Float[Tensor, "N Ht"]:
    # A projector is in float32 even where the student is in bfloat16.
    return project(student.to(project.weight.dtype)) if isinstance(project, nn.Linear) else student


def _numbers(layers: Sequence[Tensor] | Mapping[int, Tensor]) -> Collection[int]:
    return layers.keys() if isinstance(layers, Mapping) else range(len(layers))
