"""The model behind a server: what is written down of it when it is first met, and whether it is still the same."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from potstill.errors import UserError
from potstill.files.atomic import digest
from potstill.servers.api import KnowsTokens
from potstill.servers.connect import Server, WritingServer
from potstill.servers.noise import PROBE_K, NoiseFloor, Probe, as_json, difference, from_json, probe_rows
from potstill.servers.same_tokens import check_same_tokens

OTHER_TEMPERATURE = 2.0


@dataclass(frozen=True)
class ServedModel:
    """What a run knows of a served model."""

    name: str
    version: str | None
    """The version of the server's program."""
    longest: int | None
    """The most tokens that a text may have."""
    vocabulary: int
    """The number of ids of its tokenizer."""
    probes: Sequence[Sequence[int]]
    """Rows of tokens that it was asked about."""
    answers: Sequence[Mapping[str, Any]]
    """What it said of them, each asked alone (:func:`noise.as_json`)."""
    noise: Mapping[str, float]
    """The largest and the mean difference of the same answers when all are asked together, in nats."""

    @property
    def fingerprint(self) -> str:
        """Identifies the model. It is made of the answers that were written down, so that the noise of later ones does
        not change it."""
        return digest({name: value for name, value in asdict(self).items() if name != "noise"})

    @property
    def floor(self) -> NoiseFloor:
        """How far answers of this model may lie apart."""
        return NoiseFloor(**self.noise)

    def is_like(self, other: Self) -> bool:
        """Whether both are one model, within the noise of the server."""
        same = (self.name, self.vocabulary, [*self.probes]) == (other.name, other.vocabulary, [*other.probes])
        return same and self.floor.allows(difference(from_json(self.answers), from_json(other.answers)).mean)


def meet(server: Server | WritingServer, tokenizer: Any) -> ServedModel:
    """Prove that a server can teach: it answers, has the model and its tokens, and gives as much as is asked for.

    Args:
        server: the server.
        tokenizer: the run's tokenizer of the model.

    Raises:
        UserError: it cannot teach.
    """
    facts = server.api.facts()
    # Of the others, the tokens of each prompt and each answer are compared.
    if isinstance(server.api, KnowsTokens):
        check_same_tokens(server.client, server.api, tokenizer)
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    rows = probe_rows(tokenizer, facts.longest)
    k = min(server.given.top_k, vocabulary)
    server.scorer.score(rows[0], k, 1.0)
    if isinstance(server, Server) and not server.given.fixed_temperature:
        _check_follows_temperature(server, rows[0], min(PROBE_K, vocabulary))
    probe = Probe(server.client, server.scorer, rows, min(PROBE_K, k))
    alone = probe.alone()
    noise = asdict(difference(alone, probe.together()))
    return ServedModel(server.given.model, facts.version, facts.longest, vocabulary, rows, as_json(alone), noise)


def check_unchanged(server: Server | WritingServer, model: ServedModel) -> None:
    """Ask a probe again.

    Raises:
        UserError: the answers differ by more than the server's noise.
    """
    probe = Probe(server.client, server.scorer, model.probes, len(model.answers[0]["ids"][0]))
    known = from_json(model.answers)
    if model.floor.allows(difference(known[:1], [probe.ask(model.probes[0])]).mean):
        return
    # One row may lie far off by chance; all of them do not.
    found = difference(known, probe.alone())
    if model.floor.allows(found.mean):
        return
    here = server.client.connection
    raise UserError(
        f"{here.setting}: the model at {here.url} has changed: its log-probabilities differ by {found.mean:.3f} nats "
        f"on average from those that this run began with (noise: {model.floor.mean:.3f}); serve the first model again, "
        "which goes on with what is captured, or give this teacher another name, which begins anew"
    )


def _check_follows_temperature(server: Server, row: Sequence[int], k: int) -> None:
    """Refuse a server whose log-probabilities stay the same at another temperature."""
    cold, hot = (server.api.score(row, k, temperature) for temperature in (1.0, OTHER_TEMPERATURE))
    gaps = [np.sort(one.log_probs, -1)[:, -1] - np.sort(one.log_probs, -1)[:, -2] for one in (cold, hot)]
    ratio = float(np.sum(gaps[1]) / max(np.sum(gaps[0]), 1e-9))
    if abs(ratio - 1 / OTHER_TEMPERATURE) > 0.1:
        here = server.client.connection
        raise UserError(
            f"`teachers.{here.name}.api`: {here.url} does not follow the temperature of a request; take a version that "
            "does, or `api: vllm`, where it is 1"
        )
