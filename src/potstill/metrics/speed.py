"""Speed: what a model costs and what it gives in speed, round by round, and its ratios to the teacher.

The module imports nothing heavy, because `potstill compare` reads it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, NamedTuple, Self

PREFILL, PREFILL_BATCH, DECODE, DECODE_BATCH = "prefill", "prefill_batch", "decode", "decode_batch"
"""The rates, in tokens per second: a prompt that is read, and text that is written token by token; each by itself, and
as a batch of several."""


class RatioToTeacher(NamedTuple):
    """A model's figure over the teacher's: the median over rounds, and the least and the greatest round."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelSpeed:
    """The size and the speed of one model. A figure that could not be measured is None or missing."""

    model: str
    """Its label in the comparison."""
    parameters: int
    bytes: int | None
    """On disk: the files of its weights; of an adapter, with those of the model beneath it."""
    number_format: str = ""
    """Of its weights in memory: float32, bfloat16, quantised."""
    memory: int | None = None
    """The weights in memory, and the most that is allocated beside them while a batch is read and written."""
    rates: Mapping[str, tuple[float, ...]] | None = None
    """Tokens per second of each round."""
    measured_as: str | None = None
    """The model of the same shape whose figures these are; None: this model was measured itself."""

    def median(self, rate: str) -> float | None:
        """The median over rounds of one rate."""
        return median(self.rates[rate]) if self.rates else None


@dataclass(frozen=True)
class Speed:
    """The speed of a run's models in one interleaved measurement on one machine."""

    models: tuple[ModelSpeed, ...]
    device: str
    rounds: int
    batch_size: int
    prompt_tokens: int
    new_tokens: int
    notes: tuple[str, ...] = ()
    """What a reader must know, a sentence each."""

    def of(self, model: str) -> ModelSpeed | None:
        """The figures of a model by its label."""
        return next((one for one in self.models if one.model == model), None)

    @property
    def teacher(self) -> ModelSpeed | None:
        """The first teacher: the model of all ratios."""
        return next((one for one in self.models if one.model.partition(" ")[0] == "teacher"), None)

    def ratio(self, model: str, rate: str) -> RatioToTeacher | None:
        """A model's rate over the teacher's, within each round; None if one of the two was not measured."""
        own, teacher = self.of(model), self.teacher
        if own is None or teacher is None or not own.rates or not teacher.rates:
            return None
        ratios = [mine / its for mine, its in zip(own.rates[rate], teacher.rates[rate], strict=True)]
        return RatioToTeacher(median(ratios), min(ratios), max(ratios))

    def renamed(self, names: Mapping[str, str]) -> Self:
        """The same figures under other labels."""

        def name(model: str | None) -> str | None:
            return None if model is None else names.get(model, model)

        renamed = (replace(one, model=name(one.model) or "", measured_as=name(one.measured_as)) for one in self.models)
        return replace(self, models=tuple(renamed))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with each model's ratios to the teacher for readers."""
        found = asdict(self)
        for one in found["models"]:
            ratios = {rate: self.ratio(one["model"], rate) for rate in one["rates"] or ()}
            one["ratios"] = {rate: ratio._asdict() for rate, ratio in ratios.items() if ratio is not None}
        return found

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        models = []
        for one in data["models"]:
            own = {name: value for name, value in one.items() if name != "ratios"}
            rates = own["rates"] and {rate: tuple(each) for rate, each in own["rates"].items()}
            models.append(ModelSpeed(**own | {"rates": rates}))
        return cls(**dict(data) | {"models": tuple(models), "notes": tuple(data["notes"])})
