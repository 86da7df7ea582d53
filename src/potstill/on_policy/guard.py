"""Guard: whether what the student writes keeps its length and its entropy, step by step.

On-policy training can feed on itself: answers grow until the limit cuts them, shrink to a word, or repeat one text.
Then their mean length or their entropy leaves the band that it had at the beginning, and stays outside.
"""

from typing import Any, Literal

FIRST_STEPS = 10
"""The band is relative to the mean over this number of steps: a single step writes too few answers."""
SMOOTHING = 0.1
"""The weight of a new step in the exponential mean. It remembers about 10 steps, as many as the band was made from, so
that chance moves both alike."""
BANDS = {"length": (1 / 3, 3.0), "entropy": (1 / 4, 3.0)}
"""The lowest and the highest value of each figure, relative to its first steps."""
LEAST = {"length": 1.0, "entropy": 0.1}
"""Lower values count as this one. An answer has one token or more. A token that is about 98% sure has 0.1 nats: a
student that is surer than that from the beginning, or nearly, has learned and has not collapsed."""
UNITS = {"length": "tokens", "entropy": "nats per token"}

Signal = Literal["left", "stop"]


class Guard:
    """The bands of one training.

    Args:
        patience: the number of on-policy steps outside a band after which the training should stop.
    """

    def __init__(self, patience: int = 50) -> None:
        assert patience > 0, patience
        self._patience = patience
        self.reset()

    def reset(self) -> None:
        """Forget all steps, for another training."""
        self.reference_length: float | None = None
        """The mean length of the references in tokens. A student whose answers are too long or too short at first, and
        come to the length of the references, has learned. None: nothing is known of it."""
        self._steps = 0
        self._first = dict.fromkeys(BANDS, 0.0)
        self._mean = dict.fromkeys(BANDS, 0.0)
        self._outside = dict.fromkeys(BANDS, 0)
        self._since = dict.fromkeys(BANDS, 0)

    def update(self, step: int, length: float, entropy: float) -> Signal | None:
        """Follow one step in which the student wrote.

        Returns "left" at the step at which a figure leaves its band, "stop" when one has been outside for ``patience``
        steps, and otherwise None.

        Args:
            step: the optimizer step, from 1.
            length: the mean length of the step's written answers, in tokens.
            entropy: the mean entropy of the student over their tokens, in nats.
        """
        self._steps += 1
        for name, value in (("length", length), ("entropy", entropy)):
            if self._steps <= FIRST_STEPS:
                self._first[name] += (value - self._first[name]) / self._steps
                self._mean[name] = self._first[name]
            else:
                self._mean[name] += SMOOTHING * (value - self._mean[name])
        left = self._left()
        for name in BANDS:
            self._outside[name] = self._outside[name] + 1 if name in left else 0
            if self._outside[name] == 1:
                self._since[name] = step
        longest = max(self._outside.values())
        return "stop" if longest >= self._patience else "left" if 1 in self._outside.values() else None

    @property
    def is_outside(self) -> bool:
        """Whether a figure is outside its band."""
        return bool(self._left())

    def sentence(self) -> str:
        """What is outside which band, and since when. Only while something is."""
        left = self._left()
        assert left, "nothing has left its band"
        return " ".join(map(self._said, left))

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint must keep, as plain JSON."""
        return {
            "steps": self._steps,
            "first": dict(self._first),
            "mean": dict(self._mean),
            "outside": dict(self._outside),
            "since": dict(self._since),
            "reference_length": self.reference_length,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._steps = state["steps"]
        self._first, self._mean = dict(state["first"]), dict(state["mean"])
        self._outside, self._since = dict(state["outside"]), dict(state["since"])
        self.reference_length = state["reference_length"]

    def _left(self) -> list[str]:
        """The figures outside their bands. A figure that is not a number is outside."""
        if self._steps < FIRST_STEPS:
            return []
        bands = {name: self._band(name) for name in BANDS}
        return [name for name, (low, high) in bands.items() if not low <= max(self._mean[name], LEAST[name]) <= high]

    def _band(self, name: str) -> tuple[float, float]:
        first, (low, high) = max(self._first[name], LEAST[name]), BANDS[name]
        right = self.reference_length if name == "length" and self.reference_length else first
        return low * min(first, right), high * max(first, right)

    def _said(self, name: str) -> str:
        form = ",.1f" if name == "length" else ".2f"
        now, then, low, high = (format(each, form) for each in (self._mean[name], self._first[name], *self._band(name)))
        return (
            f"Since step {self._since[name]}, the mean {name} of the written answers has been outside its band: it is "
            f"{now} {UNITS[name]}, it was {then} in the first {FIRST_STEPS} steps, and the band is {low} to {high}."
        )
