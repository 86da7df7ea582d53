"""`search:` — find the divergence's share of the loss, and its temperature, on `corpus.validation`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from potstill.recipe.losses import AcrossVocabularies, CrossEntropy, GivenLoss, LikelihoodMatching, OneVocabulary
from potstill.recipe.section import Name, Section, Temperature, about_key
from potstill.recipe.training_fields import Training, TrainingFields

if TYPE_CHECKING:
    from potstill.recipe.recipe import Recipe


class Search(Section):
    """The settings that are searched, and the number of trials. All trials have one seed, so differences smaller than
    those between two seeds of `distil` are chance."""

    trials: int = Field(20, gt=0)
    """The number of trainings with settings that Optuna proposes. One more training comes first, with the setting of
    `distil.losses`, which the others must beat. Without `share`, each of `temperatures` is tried once, in their order,
    up to this number. Default: 20."""

    share: list[Annotated[float, Field(gt=0, le=1)]] | None = None
    """Two numbers: the least and the greatest share of the divergence in the sum of the two weights. Cross-entropy has
    the rest. Default: the share of `distil.losses`."""

    temperatures: list[Temperature] | None = Field(default=None, min_length=1)
    """The temperatures of the divergence to choose from. A capture keeps what each of them needs. Default: the
    temperature of `distil.losses`."""

    seed: int = Field(0, ge=0, lt=2**32)
    """The seed of the proposals and of the order of the samples in every trial. Default: 0."""

    experiment: Name | None = None
    """The experiment whose samples train the trials. The setting found is used for all experiments without their own
    losses, and may fit this one best. Default: the first experiment without its own losses."""

    training: Training = Field(default_factory=TrainingFields)
    """Fields that differ from `distil.training`, such as fewer steps."""

    @model_validator(mode="after")
    def _searches_something(self) -> "Search":
        if self.share is None and self.temperatures is None:
            raise about_key("share", "is missing, and so is `temperatures`; give at least one of them")
        if self.share is not None and (len(self.share) != 2 or self.share[0] >= self.share[1]):
            raise about_key("share", f"must be the least and the greatest share, in this order, not {self.share}")
        if self.temperatures is not None and len(set(self.temperatures)) < len(self.temperatures):
            raise about_key("temperatures", "lists a temperature twice; remove one of them")
        return self


@dataclass(frozen=True)
class Setting:
    """A setting of two losses: the share of the divergence, or of another loss from a teacher, and its temperature."""

    share: float
    """The divergence's share of the sum of the two weights."""
    temperature: float
    """1 for `alm`, which has none."""

    def __str__(self) -> str:
        return f"share {self.share:.3g}, temperature {self.temperature:g}"


def setting_of(losses: list[GivenLoss]) -> Setting | None:
    """The setting of one cross-entropy and one divergence or loss across tokenizers, in any order; None for any other
    losses."""
    entropies = [loss for loss in losses if isinstance(loss, CrossEntropy)]
    kinds = OneVocabulary | LikelihoodMatching | AcrossVocabularies
    divergences = [loss for loss in losses if isinstance(loss, kinds)]
    if (len(entropies), len(divergences), len(losses)) != (1, 1, 2):
        return None
    (divergence,) = divergences
    return Setting(divergence.weight / _total(losses), getattr(divergence, "temperature", 1.0))


def with_setting(losses: list[GivenLoss], setting: Setting) -> list[GivenLoss]:
    """The same two losses with another setting. The sum of their weights stays the same."""
    if setting == setting_of(losses):
        # Recomputed weights could differ in the last bit.
        return losses
    total, entropy = _total(losses), {"weight": (1 - setting.share) * _total(losses)}
    divergence = {"weight": setting.share * total, "temperature": setting.temperature}
    of_likelihood = {"weight": setting.share * total}

    def changed(loss: GivenLoss) -> GivenLoss:
        if isinstance(loss, CrossEntropy):
            return loss.model_copy(update=entropy)
        return loss.model_copy(update=of_likelihood if isinstance(loss, LikelihoodMatching) else divergence)

    return [changed(loss) for loss in losses]


def _total(losses: list[GivenLoss]) -> float:
    return sum(loss.weight for loss in losses)


def check_search(recipe: "Recipe") -> None:
    """Refuse a search that the rest of the recipe makes impossible.

    Raises:
        ValueError: naming the key.
    """
    search = recipe.search
    if search is None:
        return
    if search.experiment is not None and search.experiment not in recipe.experiments:
        names = f"choose one of {', '.join(recipe.experiments)}" if recipe.experiments else "there are none; remove it"
        raise ValueError(f"`search.experiment`: {search.experiment!r} is not one of the `experiments`; {names}")
    if not any(map(recipe.is_searched, recipe.variants)):
        raise ValueError(
            "`search` finds a setting of `distil.losses`, but every experiment has its own losses; remove `search`"
        )
    if not recipe.is_searched(recipe.tried_on):
        raise ValueError(
            f"`search.experiment`: {search.experiment!r} has its own losses, but `search` finds a setting of "
            "`distil.losses`; choose another experiment"
        )
    if recipe.corpus.validation is None:
        raise ValueError("`search` needs `corpus.validation`, which is missing; give its size")
    given = setting_of(recipe.distil.losses)
    if given is None:
        kinds = ", ".join(loss.kind for loss in recipe.distil.losses)
        raise ValueError(
            "`search` needs one cross_entropy and one divergence in `distil.losses`, which has "
            f"{kinds}; give these two, or remove `search`"
        )
    if search.temperatures is not None and any(isinstance(loss, LikelihoodMatching) for loss in recipe.distil.losses):
        raise ValueError("`search.temperatures`: `alm` has no temperature; search `share` alone")
    if search.share is None and search.temperatures == [given.temperature]:
        raise ValueError(
            f"`search.temperatures`: {given.temperature:g} is already the temperature of `distil.losses`; add "
            "another temperature, or search `share`"
        )
    several = {given.temperature, *(search.temperatures or [])} != {given.temperature}
    if recipe.capture is not None and recipe.capture.keep in ("sample", "hybrid") and several:
        raise ValueError(
            f"`search.temperatures`: `capture.keep: {recipe.capture.keep}` works at one temperature; use `top_k` "
            "or `hidden`, remove `capture`, or search only `share`"
        )
