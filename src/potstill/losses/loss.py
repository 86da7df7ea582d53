"""Loss: one weighted term of a recipe's list of losses; and the table of the kinds of loss."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from potstill.errors import UserError


@dataclass(frozen=True)
class Kind:
    """A kind of loss: its parameter, the power of the temperature in its scale (see divergences.py), 0 where it has no
    temperature, and whether its teachers have another tokenizer than the student."""

    parameter: Literal["beta", "alpha"] | None = None
    default: float | None = None
    temperature_power: int = 2
    crosses_tokenizers: bool = False


KINDS: dict[str, Kind] = {
    "cross_entropy": Kind(temperature_power=0),
    "forward_kl": Kind(),
    "reverse_kl": Kind(),
    "jsd": Kind("beta", 0.5),
    "skew_kl": Kind("alpha", 0.1),
    "skew_reverse_kl": Kind("alpha", 0.1),
    "total_variation": Kind(temperature_power=1),
    "adaptive_kl": Kind(),
    "alm": Kind(temperature_power=0, crosses_tokenizers=True),
    "uld": Kind(temperature_power=1, crosses_tokenizers=True),
    "shared_tokens": Kind(crosses_tokenizers=True),
}
"""Every kind of loss. All but ``cross_entropy`` compare the student with a teacher."""


@dataclass(frozen=True)
class Loss:
    """One term: ``weight`` times the sum over supervised tokens of ``kind``, at ``temperature``.

    ``beta`` belongs to jsd and ``alpha`` to the skewed divergences. Their defaults are 0.5 and 0.1, as published.

    Raises:
        UserError: an unknown kind, a parameter that the kind does not have, or a value out of its range.
    """

    kind: str
    weight: float = 1.0
    temperature: float = 1.0
    beta: float | None = None
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.kind == "hidden_match":
            raise UserError("hidden_match compares no distributions and has a class of its own: write HiddenLoss(...)")
        if self.kind not in KINDS:
            raise UserError(f"there is no loss {self.kind!r}{_near(self.kind)}; the kinds are {', '.join(KINDS)}")
        if not 0 <= self.weight < float("inf"):
            raise UserError(f"{self.kind}: weight must be a number of at least 0, not {self.weight}")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"{self.kind}: temperature must be above 0, not {self.temperature}")
        if not KINDS[self.kind].temperature_power and self.temperature != 1:
            raise UserError(f"{self.kind} has no temperature: leave temperature: {self.temperature:g} out")
        for name in ("beta", "alpha"):
            self._check_parameter(name)

    def _check_parameter(self, name: str) -> None:
        kind = KINDS[self.kind]
        value = getattr(self, name)
        if kind.parameter != name:
            if value is not None:
                owners = ", ".join(other for other, it in KINDS.items() if it.parameter == name)
                raise UserError(f"{self.kind} has no {name}; it belongs to {owners}")
        elif value is None:
            object.__setattr__(self, name, kind.default)
        elif not 0 < value < 1:
            raise UserError(f"{self.kind}: {name} must lie between 0 and 1, both excluded, not {value}")

    @property
    def needs_teacher(self) -> bool:
        """Whether it compares the student with a teacher."""
        return self.kind != "cross_entropy"

    @property
    def crosses_tokenizers(self) -> bool:
        """Whether it compares the student with a teacher of another tokenizer."""
        return KINDS[self.kind].crosses_tokenizers

    @property
    def scale(self) -> float:
        """The factor of the loss that its temperature asks for: T², or T (see divergences.py)."""
        return self.temperature ** KINDS[self.kind].temperature_power


def _near(kind: str) -> str:
    near = get_close_matches(kind, KINDS, n=2)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
