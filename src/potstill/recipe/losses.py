"""Losses: the losses that a recipe can give its students, and the figures of each."""

from typing import Annotated, Literal

from pydantic import Field

from potstill.recipe.section import Importance, Section, Temperature

LayerPair = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]


class LossBase(Section):
    weight: Importance = 1.0
    """The weight of this loss in the sum of the losses. Default: 1."""


class CrossEntropy(LossBase):
    """The negative log-likelihood of the text."""

    kind: Literal["cross_entropy"]
    """The kind of loss. Cross-entropy needs no teacher."""


class Divergence(LossBase):
    """A divergence between the teacher's and the student's distribution over the next token."""

    kind: Literal["forward_kl", "reverse_kl", "total_variation", "adaptive_kl"]
    """The kind of loss."""

    temperature: Temperature = 1.0
    """The logits of teacher and student are divided by this temperature. The loss is multiplied by its square
    (`total_variation`: by the temperature), so that the gradient keeps its size. Default: 1."""


class JensenShannon(LossBase):
    """The generalised Jensen-Shannon divergence."""

    kind: Literal["jsd"]
    """The kind of loss."""

    temperature: Temperature = 1.0
    """The logits of teacher and student are divided by this temperature. The loss is multiplied by its square, so that
    the gradient keeps its size. Default: 1."""

    beta: float = Field(0.5, gt=0, lt=1)
    """The teacher's share of the mixture that both distributions are compared with. Default: 0.5."""


class SkewedDivergence(LossBase):
    """The KL divergence from the teacher (`skew_kl`) or the student (`skew_reverse_kl`) to a mixture of both."""

    kind: Literal["skew_kl", "skew_reverse_kl"]
    """The kind of loss."""

    temperature: Temperature = 1.0
    """The logits of teacher and student are divided by this temperature. The loss is multiplied by its square, so that
    the gradient keeps its size. Default: 1."""

    alpha: float = Field(0.1, gt=0, lt=1)
    """The share of the mixture that comes from the teacher (`skew_kl`) or from the student (`skew_reverse_kl`).
    Default: 0.1."""


class HiddenMatch(LossBase):
    """The distance between hidden states of the student's layers and of the teachers' layers."""

    kind: Literal["hidden_match"]
    """The kind of loss. It needs the teachers beside the student, because a capture keeps no layers."""

    distance: Literal["mse", "cosine"] = "mse"
    """`mse` (default): the mean squared difference. `cosine`: one minus the cosine. If the hidden sizes differ, each
    pair of layers learns a linear map from the student's size to the teacher's, which is not part of the finished
    student."""

    layers: Literal["uniform"] | Annotated[list[LayerPair], Field(min_length=1)] = "uniform"
    """Pairs `[student's layer, teacher's layer]`, counted from 0. `uniform` (default): each of the student's layers is
    paired with the teacher's layer at the same relative depth."""


class LikelihoodMatching(LossBase):
    """How likely the same stretches of text are to a teacher of another tokenizer and to the student."""

    kind: Literal["alm"]
    """The kind of loss. The teacher must have another tokenizer than the student. `alm` (approximate likelihood
    matching) compares the text from one word to the next, of which both models give the likelihood, whatever their
    tokens are."""


class AcrossVocabularies(LossBase):
    """A distance between the distributions of a teacher of another tokenizer and of the student, wherever both are at
    the same byte of the text."""

    kind: Literal["uld", "shared_tokens"]
    """The kind of loss. The teacher must have another tokenizer than the student. `uld`: the distance of the sorted
    probabilities, whatever the tokens are. `shared_tokens`: the KL divergence over the tokens that are the same bytes
    in both vocabularies, with all others as one."""

    temperature: Temperature = 1.0
    """The logits of teacher and student are divided by this temperature. The loss is multiplied by its square (`uld`:
    by the temperature), so that the gradient keeps its size. Default: 1."""


class PolicyGradient(LossBase):
    """The policy gradient of the reverse KL divergence, of which a teacher gives one number a token (samples that the
    student writes only)."""

    kind: Literal["policy_gradient"]
    """The kind of loss. Each written token is rewarded by the log-probability that the teacher gives it, less the one
    that the student gave it. It estimates the gradient of `reverse_kl`, which is exact and less noisy where the teacher
    gives its whole distribution."""

    clip: float = Field(0.2, gt=0, lt=1)
    """How far the student's probability of a token may move, as a share of the one it had when the token was written,
    before the token is no longer learned from. It has an effect on reused samples only. Default: 0.2."""


GivenLoss = Annotated[
    CrossEntropy
    | Divergence
    | JensenShannon
    | SkewedDivergence
    | HiddenMatch
    | LikelihoodMatching
    | AcrossVocabularies,
    Field(discriminator="kind"),
]

OneVocabulary = Divergence | JensenShannon | SkewedDivergence
"""A loss that compares the distributions of models of one tokenizer."""

WrittenLoss = Annotated[Divergence | JensenShannon | SkewedDivergence | PolicyGradient, Field(discriminator="kind")]
"""A loss of samples that the student writes."""


def temperatures(losses: list[GivenLoss]) -> list[float]:
    """The temperatures of the losses that read a teacher's distributions."""
    return sorted({loss.temperature for loss in losses if isinstance(loss, OneVocabulary | AcrossVocabularies)})
