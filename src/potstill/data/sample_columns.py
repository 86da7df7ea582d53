"""Sample columns: what the columns of a tokenized sample say about its tokens.

Most are those of TRL's datasets. A column that is None is treated as a column that is not there, because a table has
every column in every row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError

MASKS = ("completion_mask", "assistant_masks")
"""Columns of 0 and 1 for each token. A token is learned where each of those that a sample has is 1."""

DOCUMENTS = "documents"
"""The number of tokens of each document of a packed sample, in order."""

SIZES = (DOCUMENTS, "seq_lengths")

DOCUMENT_COLUMNS = (*SIZES, "position_ids")
"""Columns that say where the documents of a packed sample begin."""

TOKEN_COLUMNS = ("input_ids", "attention_mask", "labels", *MASKS, *DOCUMENT_COLUMNS)
"""All columns that this module reads."""

HARMLESS = ("special_tokens_mask", "token_type_ids", "offset_mapping")
"""Columns that tokenizers write for other kinds of models."""

SAMPLE_WEIGHTS = ("weight", "weights", "sample_weight", "sample_weights", "loss_weight", "loss_weights")


@dataclass(frozen=True)
class TokenizedSample:
    """The tokens of one sample; all lists have the same length."""

    ids: list[int]
    real: list[int]
    """0 for a pad, otherwise 1."""
    labels: list[int]
    """The label of each token, unshifted; ignored where the token is not learned."""
    positions: list[int] | None
    """The position of each token in its document; None where the sample does not name its documents."""


def read_sample(sample: Mapping[str, Any]) -> TokenizedSample:
    """Read the columns of a tokenized sample.

    A sample without tokens, or of pads alone, becomes one token that is not learned: models need a token in each row.

    Raises:
        UserError: the sample has no `input_ids`, or a column does not fit them.
    """
    ids = column(sample, "input_ids")
    if ids is None:
        raise UserError(f"a sample has no `input_ids`, but {names(sample)}; tokenize the samples")
    if ids and not isinstance(ids[0], Integral):
        raise UserError(f"`input_ids` of a sample must be a flat list of token ids, not {_short(ids)}")
    length, least = len(ids), min(ids, default=0)
    if least < 0:
        raise UserError(f"`input_ids` of a sample has the id {least}; -100 belongs into `labels` alone")
    labels = _labels(sample, length) or ids
    real = _flags(sample, "attention_mask", length) or [1] * length
    learned = [flags for name in MASKS if (flags := _flags(sample, name, length)) is not None]
    if not any(real):
        return TokenizedSample([0], [1], [IGNORE_INDEX], None)
    labels = [label if all(flags) else IGNORE_INDEX for label, *flags in zip(labels, real, *learned, strict=True)]
    positions = _positions(sample, real)
    for at in _later_starts(positions or [], real):
        labels[at] = IGNORE_INDEX
    return TokenizedSample(ids, real, labels, positions)


def column(sample: Mapping[str, Any], name: str) -> list[Any] | None:
    """A column of a sample as a list, whether it is a list, an array or a tensor; None where it is not there."""
    values = sample.get(name)
    if values is None:
        return None
    return list(values) if not hasattr(values, "tolist") else values.tolist()


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
    if any(any(column(sample, "token_type_ids") or []) for sample in samples):
        raise UserError("samples have `token_type_ids` other than 0, which are not read; remove the column")


def _has_numbers_for_tokens(sample: Mapping[str, Any], name: str) -> bool:
    if isinstance(sample.get(name), str) or not hasattr(sample.get(name), "__len__"):
        return False
    values = column(sample, name) or []
    return len(values) == len(sample["input_ids"]) and all(isinstance(value, Real) for value in values)


def _per_token(sample: Mapping[str, Any], name: str, length: int) -> list[Any] | None:
    values = column(sample, name)
    if values is not None and len(values) != length:
        raise UserError(
            f"`{name}` of a sample has {len(values):,} numbers, but its `input_ids` has {length:,} tokens; give one "
            "number for each token"
        )
    return values


def _labels(sample: Mapping[str, Any], length: int) -> list[int] | None:
    labels = _per_token(sample, "labels", length)
    wrong = [label for label in set(labels or []) if label is None or (label < 0 and label != IGNORE_INDEX)]
    if wrong:
        raise UserError(f"`labels` of a sample has {wrong[0]}; a label is a token id, or -100 where none is learned")
    return labels


def _flags(sample: Mapping[str, Any], name: str, length: int) -> list[int] | None:
    values = _per_token(sample, name, length)
    if values is not None and not set(values) <= {0, 1}:
        wrong = next(value for value in values if value not in (0, 1))
        raise UserError(f"`{name}` of a sample must be 0 or 1 for each token, not {wrong!r}")
    return None if values is None else [int(value) for value in values]


def _positions(sample: Mapping[str, Any], real: list[int]) -> list[int] | None:
    """The position of each token in its document, by all columns that name the documents."""
    found: dict[str, list[int]] = {}
    for name in SIZES:
        if (sizes := column(sample, name)) is not None:
            found[name] = _positions_of_sizes(name, sizes, len(real))
    if (positions := _per_token(sample, "position_ids", len(real))) is not None:
        found["position_ids"] = _checked_positions(positions, real)
    names = list(found)
    for other in names[1:]:
        if list(_later_starts(found[names[0]], real)) != list(_later_starts(found[other], real)):
            raise UserError(f"`{names[0]}` and `{other}` of a sample disagree about its documents; leave one out")
    return found[names[0]] if names else None


def _positions_of_sizes(name: str, sizes: list[int], length: int) -> list[int]:
    if sum(sizes) != length or min(sizes) < 0:
        raise UserError(
            f"`{name}` of a sample counts {sum(sizes):,} tokens, but its `input_ids` has {length:,}; give the number "
            "of tokens of each document"
        )
    return [place for size in sizes for place in range(size)]


def _checked_positions(positions: list[int], real: list[int]) -> list[int]:
    """Positions that count from 0 in each document; those of pads become 0."""
    expected = 0
    for place, is_real in zip(positions, real, strict=True):
        if is_real and place not in (0, expected):
            raise UserError(
                f"`position_ids` of a sample has {place} where {expected} comes next; positions count from 0, and "
                "begin again at 0 with each document; remove the column, or correct it"
            )
        expected = place + 1 if is_real else expected
    return [place if is_real else 0 for place, is_real in zip(positions, real, strict=True)]


def _later_starts(positions: list[int], real: list[int]) -> Iterable[int]:
    """Where the documents begin that come right after another one."""
    for at, (before, now) in enumerate(pairwise(positions), start=1):
        if now != before + 1 and real[at] and real[at - 1]:
            yield at


def names(sample: Mapping[str, Any]) -> str:
    """The names of a sample's columns that are there, for messages."""
    found = [f"`{name}`" for name in sample if sample[name] is not None]
    return f"only {', '.join(found)}" if found else "no column that is not null"


def _short(values: list[Any]) -> str:
    text = repr(values)
    return text if len(text) < 40 else f"{text[:40]}…"
