"""The hidden_match losses of one training: the layers and projectors for each teacher, and the sum of distances."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from potstill.errors import UserError
from potstill.losses.hidden_states import HiddenDistance, HiddenLoss
from potstill.models.forward import LayerStates

PROJECTORS = "projectors.safetensors"
"""The file of a checkpoint that holds the projectors. They are not part of the student and end with the training."""


class HiddenMatching(nn.Module):
    """Each loss against each teacher, each pair with projectors of its own. Teachers are weighted by their shares.

    It is separate from the student, so that the student is saved, wrapped and clipped as without it. This class handles
    the projectors' gradients and checkpoints.

    Args:
        losses: the losses, in the order in which they are logged.
        student: the student's configuration.
        teachers: each teacher's configuration.
        shares: each teacher's share, with a sum of one.
        seed: the seed of the projectors, the same on every rank.

    Raises:
        UserError: a layer does not exist, or the student is too deep for a uniform map.
    """

    def __init__(
        self, losses: Sequence[HiddenLoss], student: Any, teachers: Sequence[Any], shares: Sequence[float], seed: int
    ) -> None:
        super().__init__()
        self.losses, self.shares = losses, shares
        ours, theirs = _text(student), [_text(teacher) for teacher in teachers]
        if not all(hasattr(teacher, "num_hidden_layers") for teacher in theirs):
            raise UserError("hidden_match needs the teacher's layers, and a teacher behind a server shows none")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.matches = nn.ModuleList(
                nn.ModuleList(
                    HiddenDistance(
                        loss.layer_map(ours.num_hidden_layers, teacher.num_hidden_layers),
                        ours.hidden_size,
                        teacher.hidden_size,
                        loss.distance,
                    )
                    for teacher in theirs
                )
                for loss in losses
            )
        self.student_layers = {pair[0] for _, _, match in self._each() for pair in match.layer_map}
        self.teacher_layers = [
            {pair[1] for _, place, match in self._each() if place == wanted for pair in match.layer_map}
            for wanted in range(len(teachers))
        ]

    def forward(
        self, student: LayerStates, teachers: Sequence[LayerStates], denominator: Tensor
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The weighted sum over tokens, losses and teachers, divided by ``denominator``; and the numbers to log.

        These are detached: each loss's mean without its weight, and with several teachers each teacher's
        (``hidden_match/teacher0``).
        """
        terms: dict[str, Tensor] = {}
        total: Tensor | float = 0.0
        for number, place, match in self._each():
            mean = match(student, teachers[place]).sum() / denominator
            total = total + self.losses[number].weight * self.shares[place] * mean
            name, alone = _name(number), mean.detach()
            terms[name] = terms.get(name, torch.zeros_like(alone)) + self.shares[place] * alone
            if len(teachers) > 1:
                terms[f"{name}/teacher{place}"] = alone
        assert isinstance(total, Tensor)
        return total, terms

    def _each(self) -> Iterator[tuple[int, int, HiddenDistance]]:
        """For each loss and each teacher: the two numbers, and their distance."""
        for number, of_loss in enumerate(self.matches):
            assert isinstance(of_loss, nn.ModuleList)
            for place, match in enumerate(of_loss):
                assert isinstance(match, HiddenDistance)
                yield number, place, match

    @property
    def learns(self) -> bool:
        """Whether there are projectors. There are none where student and teachers have the same hidden size."""
        return any(True for _ in self.parameters())

    def join(self, optimizer: Optimizer, weight_decay: float) -> None:
        """Add the projectors to the student's optimizer, once."""
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if self.learns and not any(id(parameter) in known for parameter in self.parameters()):
            optimizer.add_param_group({"params": list(self.parameters()), "weight_decay": weight_decay})

    def average_gradients(self, ranks: int) -> None:
        """Average gradients over ranks, as DDP does for the student's. Call it after the last backward of a step."""
        for gradient in _gradients(self.parameters()) if ranks > 1 else ():
            torch.distributed.all_reduce(gradient)
            gradient /= ranks

    def save(self, checkpoint: Path) -> None:
        """Write the projectors into a checkpoint, if there are any."""
        if self.learns:
            save_file(
                {name: weight.contiguous() for name, weight in self.state_dict().items()}, checkpoint / PROJECTORS
            )

    def load(self, checkpoint: Path) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: the checkpoint has no projectors, or those of other losses, layers or teachers.
        """
        if not self.learns:
            return
        file = checkpoint / PROJECTORS
        try:
            self.load_state_dict(load_file(file))
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{file} does not hold the projectors of these hidden_match losses; resume with the losses and the "
                "teachers of the checkpoint, or start anew"
            ) from error


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _name(number: int) -> str:
    return HiddenLoss.kind + (f"_{number + 1}" if number else "")


def _text(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config
