"""Samples: the data sets that a trainer is given, and whether its collator and its models can read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

from potstill.data.collators import Collate, Collator, FittingCollator, SharedVocabularyCollator
from potstill.data.labels import count_supervised, starts_document
from potstill.data.prompts.collator import AlignedCollator, AlignedSample, SampleCollator
from potstill.data.sample_columns import SIZES, TOKEN_COLUMNS
from potstill.data.text_of_batch import TextCollator
from potstill.data.text_runs import TEXT_RUNS
from potstill.data.turns_of_batch import PIECE_COLUMNS, TurnsCollator
from potstill.errors import UserError
from potstill.targets.collator import TargetCollator
from potstill.targets.span_collator import SpanCollator
from potstill.targets.turn_collator import CapturedTurnsCollator
from potstill.training.taught_rows import EachReadingCollator, TaughtRowsCollator

COLUMNS = (*TOKEN_COLUMNS, *AlignedSample.__annotations__, *PIECE_COLUMNS, TEXT_RUNS)
"""The columns of tokenized samples that are read."""

_OWN = (
    *(Collator, AlignedCollator, SampleCollator, FittingCollator, SharedVocabularyCollator),
    *(TargetCollator, TaughtRowsCollator, TextCollator, EachReadingCollator, TurnsCollator, SpanCollator),
    CapturedTurnsCollator,
)

_LOOKED_AT = 8


def is_streamed(dataset: Any) -> bool:
    """Whether samples can only be read in order. Nothing is known of them before the training reads them."""
    return isinstance(dataset, IterableDataset)


def first_samples(dataset: Any, name: str) -> list[Mapping[str, Any]]:
    """The first samples of a data set; none where they are streamed or no mappings, or where there is no data set.

    A stream is not looked into: one that can be read only once would lose its first sample.

    Args:
        name: the argument that the data set was given as, for messages.

    Raises:
        UserError: the data set is empty, has several parts, or cannot be indexed.
    """
    if dataset is None or is_streamed(dataset):
        return []
    if isinstance(dataset, Mapping):
        raise UserError(f"`{name}` has the parts {', '.join(map(repr, dataset))}; give one of them")
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise UserError(
            f"`{name}` is a {type(dataset).__name__}; give a data set, a list of samples or an IterableDataset"
        )
    if not len(dataset):
        raise UserError(f"`{name}` has no samples; give at least one")
    samples = [dataset[at] for at in range(min(_LOOKED_AT, len(dataset)))]
    return samples if all(isinstance(sample, Mapping) for sample in samples) else []


def is_own(collate: Collate) -> bool:
    """Whether a collator is one of potstill's, which read every column or leave some out on purpose."""
    inner = getattr(collate, "collate", None)
    return isinstance(collate, _OWN) and (inner is None or is_own(inner))


def check_collator(collate: Collate, samples: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a collator of the user's own that ignores columns of the samples. It is tried on the first samples.

    Raises:
        UserError: the collator fails, gives no labels, learns tokens that the samples leave out, joins their documents
            or drops the teacher's prompts.
    """
    if is_own(collate) or not samples:
        return
    own, columns = getattr(collate, "__name__", type(collate).__name__), ", ".join(f"`{name}`" for name in samples[0])
    try:
        batch = collate([dict(sample) for sample in samples])
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
        raise UserError(
            f"`data_collator` ({own}) fails on the first samples ({type(error).__name__}), which have the columns "
            f"{columns or '(none)'}; leave it out, correct it, or set `remove_unused_columns=False` if it reads others"
        ) from error
    if any(sample.get("input_ids") is None for sample in samples):
        return
    wrong = _ignored(batch, Collator(0)(samples), samples)
    if wrong is not None:
        raise UserError(
            f"`data_collator` ({own}) {wrong}; leave it out, because the trainer itself reads {columns}, or correct it"
        )


def _ignored(
    batch: Mapping[str, Tensor], expected: Mapping[str, Tensor], samples: Sequence[Mapping[str, Any]]
) -> str | None:
    """What a batch leaves out of its samples, as a clause."""
    if "labels" not in batch or "input_ids" not in batch:
        return "gives no `input_ids` or no `labels`"
    if samples[0].get("teacher_input_ids") is not None and "teacher_input_ids" not in batch:
        return "drops `teacher_input_ids`, so teachers would read the student's prompts"
    if starts_document(expected).any() and not starts_document(batch).any():
        return "joins the documents of a sample"
    learned, allowed = int(count_supervised(batch)), int(count_supervised(expected))
    if learned > allowed:
        return f"learns {learned:,} tokens of the first samples, whose columns allow {allowed:,}"
    return None


def name_documents(batch: Mapping[str, Tensor], samples: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a data set has several documents in its rows, by its first samples and their batch."""
    named = any(sample.get(name) is not None for sample in samples for name in SIZES)
    return named or bool(starts_document(batch).any())


@dataclass(frozen=True)
class OneDocumentCollator:
    """A collator for models that cannot keep documents of one row apart: it refuses rows of several documents.

    Args:
        collate: the collator of the batches.
        reason: the message of the refusal.
    """

    collate: Collate
    reason: str

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The collator's batch."""
        batch = self.collate(samples)
        if starts_document(batch).any():
            raise UserError(self.reason)
        return batch
