"""How near responses are to references: ROUGE-L, and cosines of word vectors and of sentence embeddings.

Each score is also taken of random pairs, responses against references of other questions: averages of word vectors lie
near each other whatever is said, and a figure without that baseline says nothing.

Shapes: U units (questions), K pairs, D dimensions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.errors import UserError, first_line
from potstill.files.installed_packages import package_folder
from potstill.metrics.bootstrap import Array
from potstill.recipe.continuations import PackagedSentences, Sentences

Indices = NDArray[np.int64]
Similarity = Callable[[Indices, Indices], Array]
"""The scores of responses [K] against references [K], both by their places among the questions."""

INSTALL = "pip install 'potstill[similarity]'"


def with_random_pairs(score: Similarity, derangements: Indices) -> tuple[Array, Array]:
    """Each response's score against its own reference, and its mean against references of others: [U] and [U]."""
    own = np.arange(derangements.shape[1])
    return score(own, own), np.mean([score(own, others) for others in derangements], axis=0)


def derangements(units: int, count: int, seed: int = 0) -> Indices:
    """So many permutations in which nothing stays in its place, each as probable as any other: [count, units].

    The same for the same numbers: all models meet the same pairs.
    """
    assert units > 1, "one question has no other"
    draw = np.random.default_rng((seed, units))
    found: list[Indices] = []
    while len(found) < count:
        # One draw in e = 2.72 leaves nothing in its place, however many units there are.
        candidate = draw.permutation(units)
        if (candidate != np.arange(units)).all():
            found.append(candidate)
    return np.stack(found)


def rouge_l(responses: Sequence[str], references: Sequence[str]) -> Mapping[str, Similarity]:
    """Longest common subsequence over the response's words (precision), the reference's (recall), and their F1.

    Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, 2004, as Google's ``rouge_score`` has it, without
    stemming. It reads lower-case a to z and digits only: of text in other scripts nothing is left, and the score is 0.
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
    """The cosine of two embeddings, each [U, D]; 0 where one of them is nothing, as that of an empty response is."""
    ours, theirs = _unit(responses), _unit(references)
    return lambda rows, columns: np.einsum("kd,kd->k", ours[rows], theirs[columns])


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors, dtype=np.float64), where=lengths > 0)


def sentence_model(given: Sentences, key: str) -> str:
    """The folder or name of the sentence model that a recipe names. Raises UserError as :func:`vectors_file`."""
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
    """A sentence-transformers model, as its own configuration pools and normalises.

    Args:
        model: a folder, or a name on the hub.
        key: the recipe key that named it.
        revision: of the hub's repository.

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
                "name another, or set the key to `null`, which leaves the metric out"
            ) from error

    def __call__(self, texts: Iterable[str]) -> Array:
        """Their embeddings [U, D]; of a text without a word, zeros."""
        found = list(texts)
        vectors = self._model.encode(found, show_progress_bar=False, convert_to_numpy=True).astype(np.float64)
        vectors[[not text.strip() for text in found]] = 0
        return np.asarray(vectors)


def check_rouge(key: str) -> None:
    """Raises UserError where ROUGE cannot be computed here."""
    _check("rouge_score", f"`{key}` is scored by ROUGE-L", "")


def check_sentences(key: str) -> None:
    """Raises UserError where sentences cannot be embedded here."""
    _check("sentence_transformers", f"`{key}` is a sentence-transformers model", ", or set the key to `null`")


def _check(library: str, why: str, otherwise: str) -> None:
    from importlib.util import find_spec

    if find_spec(library) is None:
        name = library.replace("_", "-")
        raise UserError(f"{why}, and the library {name} is not installed; {INSTALL}{otherwise}")
