"""Similarity of responses and references: ROUGE-L, and cosines of word vectors and of sentence embeddings.

Each metric is also computed on random pairs: responses against the references of other questions. Averages of word
vectors are similar for any two texts, so that the figure means nothing without this baseline.

Shapes: U units (questions), K pairs, D dimensions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.errors import UserError, first_line
from potstill.files.installed_packages import package_folder
from potstill.metrics.intervals import Array
from potstill.recipe.continuations import PackagedSentences, Sentences

Indices = NDArray[np.int64]
Similarity = Callable[[Indices, Indices], Array]
"""Scores responses [K] against references [K]; both are given as indices of questions."""

RANDOM = "random"
"""The suffix of a metric that compares responses with references of other questions."""

INSTALL = "pip install 'potstill[similarity]'"


def with_random_pairs(score: Similarity, derangements: Indices) -> tuple[Array, Array]:
    """Each response's score against its own reference, and its mean score against other references: [U] and [U]."""
    own = np.arange(derangements.shape[1])
    return score(own, own), np.mean([score(own, others) for others in derangements], axis=0)


def derangements(units: int, count: int, seed: int = 0) -> Indices:
    """Permutations that leave nothing in its place, each equally probable: [count, units].

    The same arguments give the same permutations: all models get the same pairs.
    """
    assert units > 1, "a random pair needs two questions"
    draw = np.random.default_rng((seed, units))
    found: list[Indices] = []
    while len(found) < count:
        # For any number of units, one draw in e = 2.72 leaves nothing in its place.
        candidate = draw.permutation(units)
        if (candidate != np.arange(units)).all():
            found.append(candidate)
    return np.stack(found)


def rouge_l(responses: Sequence[str], references: Sequence[str]) -> Mapping[str, Similarity]:
    """Longest common subsequence over the response's words (precision), the reference's (recall), and their F1.

    Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, 2004, as in Google's ``rouge_score``, without
    stemming. It keeps only a to z (in lower case) and digits: text in another script has a score of 0.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])

    @cache
    def score(row: int, column: int) -> Any:
        return scorer.score(references[column], responses[row])["rougeL"]

    def scores(which: str, rows: Indices, columns: Indices) -> Array:
        return np.array([getattr(score(*pair), which) for pair in zip(rows.tolist(), columns.tolist(), strict=True)])

    names = {"precision": "precision", "recall": "recall", "f": "fmeasure"}
    return {name: partial(scores, its) for name, its in names.items()}


def cosine(responses: Array, references: Array) -> Similarity:
    """The cosine of two embeddings, each [U, D]; 0 if one of them is zero, as for an empty response."""
    ours, theirs = _unit(responses), _unit(references)
    return lambda rows, columns: np.einsum("kd,kd->k", ours[rows], theirs[columns])


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors, dtype=np.float64), where=lengths > 0)


def sentence_model(given: Sentences, key: str) -> str:
    """The folder or hub name of a recipe's sentence model. Raises UserError if it is in a package that is missing."""
    if not isinstance(given, PackagedSentences):
        return given.model
    try:
        folder = package_folder(given.package, f"{key}.package") / given.folder
    except UserError as error:
        raise UserError(f"{error}; or name a `model`, or set `{key}` to `null`") from None
    if not folder.is_dir():
        raise UserError(
            f"`{key}.folder`: there is no folder {given.folder!r} in the installed package {given.package!r}"
        )
    return str(folder)


class SentenceEncoder:
    """A sentence-transformers model, with the pooling and normalisation of its own configuration.

    Args:
        model: a folder, or a name on the hub.
        key: the recipe key that named it.
        revision: of the repository on the hub.

    Raises:
        UserError: it cannot be loaded.
    """

    def __init__(self, model: str | Path, key: str, revision: str | None = None) -> None:
        from sentence_transformers import SentenceTransformer

        from potstill.device import device

        try:
            self._model: Any = SentenceTransformer(str(model), revision=revision, device=str(device()))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"`{key}`: {str(model)!r} cannot be loaded as a sentence-transformers model ({first_line(error)}); "
                "name another model, or set the key to `null` to leave the metric out"
            ) from error

    def __call__(self, texts: Iterable[str]) -> Array:
        """The embeddings of texts, [U, D]; zeros for a blank text."""
        found = list(texts)
        vectors = self._model.encode(found, show_progress_bar=False, convert_to_numpy=True).astype(np.float64)
        vectors[[not text.strip() for text in found]] = 0
        return np.asarray(vectors)


@lru_cache(maxsize=1)
def _encoder(model: str, key: str, revision: str | None) -> SentenceEncoder:
    """The encoder, loaded once for all snapshots of a training."""
    return SentenceEncoder(model, key, revision)


def sentence_encoder(given: Sentences, key: str) -> SentenceEncoder:
    """The encoder that a recipe names.

    Raises:
        UserError: as :func:`sentence_model` and :class:`SentenceEncoder`.
    """
    return _encoder(sentence_model(given, key), key, getattr(given, "revision", None))


def check_rouge(key: str) -> None:
    """Raise UserError if the library for ROUGE is not installed."""
    _check("rouge_score", f"`{key}` is scored by ROUGE-L", "")


def check_sentences(key: str) -> None:
    """Raise UserError if the library for sentence embeddings is not installed."""
    _check("sentence_transformers", f"`{key}` is a sentence-transformers model", ", or set the key to `null`")


def _check(library: str, why: str, otherwise: str) -> None:
    from importlib.util import find_spec

    if find_spec(library) is None:
        name = library.replace("_", "-")
        raise UserError(f"{why}, and the library {name} is not installed; {INSTALL}{otherwise}")
