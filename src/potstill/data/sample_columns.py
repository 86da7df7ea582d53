"""Sample columns: what the columns of a tokenized sample say about its tokens.

Most are those of TRL's datasets. A column that is None is treated as a column that is not there, because a table has
every column in every row.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.data.column_names import column_names
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError

MASKS = ("completion_mask", "assistant_masks")
"""Columns of 0 and 1 for each token. A token is learned where each of those that a sample has is 1."""

DOCUMENTS = "documents"
"""The number of tokens of each document of a packed sample, in order."""

SIZES = (DOCUMENTS, "seq_lengths")

DOCUMENT_COLUMNS = (*SIZES, "position_ids")
"""Columns that say where the documents of a packed sample begin."""

FLAGS = ("attention_mask", *MASKS)

TOKEN_COLUMNS = ("input_ids", *FLAGS, "labels", *DOCUMENT_COLUMNS)
"""All columns that this module reads."""

HARMLESS = ("special_tokens_mask", "token_type_ids", "offset_mapping")
"""Columns that tokenizers write for other kinds of models."""

SAMPLE_WEIGHTS = ("weight", "weights", "sample_weight", "sample_weights", "loss_weight", "loss_weights")


Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenizedSample:
    """The tokens of one sample; all arrays are [T]."""

    ids: Numbers
    real: NDArray[np.bool_]
    """False for a pad."""
    labels: Numbers
    """The label of each token, unshifted; ignored where the token is not learned."""
    positions: Numbers | None
    """The position of each token in its document; None where the sample does not name its documents."""


def read_sample(sample: Mapping[str, Any]) -> TokenizedSample:
    """Read the columns of a tokenized sample.

    A sample without tokens, or of pads alone, becomes one token that is not learned: models need a token in each row.

    Raises:
        UserError: the sample has no `input_ids`, or a column does not fit them.
    """
    ids = column(sample, "input_ids")
    if ids is None:
        raise UserError(f"a sample has no `input_ids`, but {column_names(sample)}; tokenize the samples")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise UserError(f"`input_ids` of a sample must be a flat list of token ids, not {_short(ids.tolist())}")
    length, least = len(ids), ids.min(initial=0)
    if least < 0:
        raise UserError(f"`input_ids` of a sample has the id {least}; -100 belongs into `labels` alone")
    labels, flags = _labels(sample, length), [_flags(sample, name, length) for name in FLAGS]
    real = np.ones(length, bool) if flags[0] is None else flags[0]
    if not real.any():
        return TokenizedSample(np.array([0]), np.array([True]), np.array([IGNORE_INDEX]), None)
    ids = ids.astype(np.int64, copy=False)
    # A copy: the sample stays as it is.
    labels = np.array(ids if labels is None else labels, np.int64)
    for learned in flags:
        if learned is not None:
            labels[~learned] = IGNORE_INDEX
    positions = _positions(sample, real)
    if positions is not None:
        labels[_later_starts(positions, real)] = IGNORE_INDEX
    return TokenizedSample(ids, real, labels, positions)


@dataclass(frozen=True, eq=False)
class TokenizedRows:
    """The tokens of several samples, one sample after the other, as in :class:`TokenizedSample`."""

    lengths: Numbers
    """The number of tokens of each sample."""
    ids: Numbers
    real: NDArray[np.bool_]
    labels: Numbers


def read_plain_samples(samples: Sequence[Mapping[str, Any]]) -> TokenizedRows | None:
    """Read samples at once that have the same columns, name no documents and leave nothing to refuse.

    It gives what :func:`read_sample` gives of each, some ten times as fast.

    Returns:
        The samples; None if they must be read one by one.
    """
    columns: dict[str, Numbers] = {}
    lengths: list[int] = []
    for name in TOKEN_COLUMNS:
        found = [values for sample in samples if (values := column(sample, name)) is not None]
        if not found and name != "input_ids":
            continue
        kinds = "iub" if name in FLAGS else "iu"
        if name in DOCUMENT_COLUMNS or any(values.ndim != 1 or values.dtype.kind not in kinds for values in found):
            return None
        lengths = lengths or [len(values) for values in found]
        if len(found) < len(samples) or [len(values) for values in found] != lengths:
            return None
        columns[name] = np.concatenate(found, dtype=np.int64)
    ids, flags = columns["input_ids"], [columns[name] for name in FLAGS if name in columns]
    labels = columns["labels"] if "labels" in columns else ids.copy()
    real = columns.get("attention_mask", np.ones(len(ids), np.int64)) == 1
    fits = ids.min(initial=0) >= 0 and not (labels[labels < 0] != IGNORE_INDEX).any()
    fits &= all(((flag == 0) | (flag == 1)).all() for flag in flags)
    if not fits or not min(lengths) or not np.logical_or.reduceat(real, np.cumsum([0, *lengths[:-1]])).all():
        return None
    for learned in flags:
        labels = np.where(learned == 1, labels, IGNORE_INDEX)
    return TokenizedRows(np.array(lengths), ids, real, labels)


def column(sample: Mapping[str, Any], name: str) -> NDArray[Any] | None:
    """A column of a sample as an array, whether it is a list, an array or a tensor; None where it is not there."""
    values = sample.get(name)
    if values is None:
        return None
    if type(values) is list and values and type(values[0]) is int:
        try:
            return np.frombuffer(array("q", values), np.int64)  # faster than numpy reads a list
        except (TypeError, OverflowError):  # not all are whole numbers of 64 bits
            pass
    try:
        found = np.asarray(values)
    except ValueError:  # lists of unequal lengths
        found = np.asarray(values, dtype=object)
    # Of an empty list numpy makes floats.
    return found if found.size else found.astype(np.int64)


def check_columns(samples: Sequence[Mapping[str, Any]], known: Iterable[str]) -> None:
    """Refuse columns that would change what is learned, if anything read them.

    These are weights of samples, and columns that have a number for each token in every sample.

    Args:
        samples: tokenized samples.
        known: the names of the columns that are read.

    Raises:
        UserError: there is such a column. It names the column.
    """
    samples = [sample for sample in samples if len(sample["input_ids"])]
    others = {name for sample in samples for name in sample if sample[name] is not None} - {*known, *HARMLESS}
    for name in sorted(others):
        if name in SAMPLE_WEIGHTS:
            raise UserError(f"samples have a column `{name}`, but every token has the same weight; remove the column")
        if all(_has_numbers_for_tokens(sample, name) for sample in samples):
            raise UserError(
                f"samples have a column `{name}` with a number for each token, which is not read; write `labels` "
                f"(-100 for what is not learned) or `completion_mask` (1 for what is learned), or remove `{name}`"
            )
    kinds = (column(sample, "token_type_ids") for sample in samples)
    if any(kind is not None and kind.any() for kind in kinds):
        raise UserError("samples have `token_type_ids` other than 0, which are not read; remove the column")


def _has_numbers_for_tokens(sample: Mapping[str, Any], name: str) -> bool:
    values = column(sample, name)
    return values is not None and values.shape == (len(sample["input_ids"]),) and values.dtype.kind in "biuf"


def _per_token(sample: Mapping[str, Any], name: str, length: int) -> NDArray[Any] | None:
    values = column(sample, name)
    if values is not None and values.shape != (length,):
        raise UserError(
            f"`{name}` of a sample has {len(values) if values.ndim else 1:,} numbers, but its `input_ids` has "
            f"{length:,} tokens; give one number for each token"
        )
    return values


def _labels(sample: Mapping[str, Any], length: int) -> NDArray[Any] | None:
    labels = _per_token(sample, "labels", length)
    if labels is None:
        return None
    wrong = (labels < 0) & (labels != IGNORE_INDEX) if labels.dtype.kind in "iu" else np.ones(length, bool)
    if wrong.any():
        first = labels[wrong].tolist()[0]
        raise UserError(f"`labels` of a sample has {first}; a label is a token id, or -100 where none is learned")
    return labels


def _flags(sample: Mapping[str, Any], name: str, length: int) -> NDArray[np.bool_] | None:
    values = _per_token(sample, name, length)
    if values is None:
        return None
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        raise UserError(f"`{name}` of a sample must be 0 or 1 for each token, not {values[wrong].tolist()[0]!r}")
    return values == 1


def _positions(sample: Mapping[str, Any], real: NDArray[np.bool_]) -> Numbers | None:
    """The position of each token in its document, by all columns that name the documents."""
    found: dict[str, Numbers] = {}
    for name in SIZES:
        if (sizes := column(sample, name)) is not None:
            found[name] = _positions_of_sizes(name, sizes, len(real))
    if (positions := _per_token(sample, "position_ids", len(real))) is not None:
        found["position_ids"] = _checked_positions(positions, real)
    names = list(found)
    for other in names[1:]:
        if not np.array_equal(_later_starts(found[names[0]], real), _later_starts(found[other], real)):
            raise UserError(f"`{names[0]}` and `{other}` of a sample disagree about its documents; leave one out")
    return found[names[0]] if names else None


def _positions_of_sizes(name: str, sizes: NDArray[Any], length: int) -> Numbers:
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu":
        raise UserError(f"`{name}` of a sample must be a flat list of numbers of tokens, not {_short(sizes.tolist())}")
    if sizes.sum() != length or sizes.min(initial=0) < 0:
        raise UserError(
            f"`{name}` of a sample counts {sizes.sum():,} tokens, but its `input_ids` has {length:,}; give the number "
            "of tokens of each document"
        )
    return np.arange(length) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _checked_positions(positions: NDArray[Any], real: NDArray[np.bool_]) -> Numbers:
    """Positions that count from 0 in each document; those of pads become 0."""
    if positions.dtype.kind not in "iu":
        raise UserError(
            f"`position_ids` of a sample must be whole numbers, not {_short(positions.tolist())}; correct it"
        )
    places = positions[real]
    expected = np.concatenate([[0], places[:-1] + 1])
    wrong = (places != 0) & (places != expected)
    if wrong.any():
        raise UserError(
            f"`position_ids` of a sample has {places[wrong][0]} where {expected[wrong][0]} comes next; positions count "
            "from 0, and begin again at 0 with each document; remove the column, or correct it"
        )
    return np.where(real, positions, 0)


def _later_starts(positions: Numbers, real: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Where the documents begin that come right after another one."""
    begins = (positions[1:] != positions[:-1] + 1) & real[1:] & real[:-1]
    return np.flatnonzero(begins) + 1


def _short(values: list[Any]) -> str:
    text = repr(values)
    return text if len(text) < 40 else f"{text[:40]}…"
