"""Checked rows: what a server says of a row of tokens, after a check that it can be a teacher's predictions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from potstill.errors import UserError
from potstill.servers.api import ScoredRow

IMPOSSIBLE = -9999.0
"""What vLLM writes for ``-inf``, which JSON does not have."""
MOST_MASS = 1.01
"""The most that the probabilities of one position may sum to: a server in bfloat16 may round them up."""


def scored_row(
    row: Sequence[int], k: int, likeliest: Iterable[Mapping[int, float]], labels: Iterable[Any], what: str
) -> ScoredRow:
    """The predictions of a server for a row of T tokens.

    Args:
        row: the tokens.
        k: the number of log-probabilities that were asked for at each position.
        likeliest: the log-probability of each of the k likeliest tokens, for tokens 1 to T - 1.
        labels: the log-probability of each of the tokens 1 to T - 1.
        what: the server, for messages.

    Raises:
        UserError: these are not T - 1 distributions: there are too few or too many, or a number is none.
    """
    found, of_labels = [*likeliest], numbers([*labels], what)
    wanted = len(row) - 1
    if len(found) != wanted or len(of_labels) != wanted:
        raise UserError(
            f"{what} answers with {len(found):,} predictions for a row of {len(row):,} tokens, where {wanted:,} "
            "belong; it does not score prompts as its kind of server does"
        )
    short = min(map(len, found), default=k)
    if short < k:
        raise UserError(f"{what} gives only {short:,} log-probabilities for a token, of {k:,} asked for; lower `top_k`")
    ids = np.array([[*each] for each in found], np.int64).reshape(wanted, -1)
    log_probs = numbers([[*each.values()] for each in found], what).reshape(wanted, -1)
    mass = np.exp(log_probs).sum(-1)
    if (mass > MOST_MASS).any():
        raise UserError(f"{what} gives one token probabilities that sum to {mass.max():.3f}; they are no distribution")
    return ScoredRow(ids, log_probs, of_labels)


def numbers(values: Sequence[Any], what: str) -> Float[NDArray[np.float64], "..."]:
    """Log-probabilities as an array in float64; those that stand for ``-inf`` are ``-inf``.

    Raises:
        UserError: a value is not a log-probability.
    """
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        found = np.array([np.nan])
    if np.isnan(found).any() or (found > 1e-3).any():
        raise UserError(
            f"{what} answers with log-probabilities that are no numbers up to 0 (NaN or null); run its model in a "
            "number format that it bears, such as bfloat16"
        )
    return np.where(found <= IMPOSSIBLE, -np.inf, np.minimum(found, 0.0))
