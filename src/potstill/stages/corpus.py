"""corpus: read the text, clean it, split it, tokenize it and lay it out.

Makes `train/` (samples), `held_out/` (what models are judged on) and, where weights are chosen by it, `validation/`
(samples); all of them are plain `datasets` folders. Of questions, all three hold questions and references: how they are
asked is for `prompts`.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from datasets import Dataset, Features, List, Value

from potstill import ready
from potstill.console import progress, say, table
from potstill.files import remove
from potstill.pipeline import Made, Work
from potstill.recipe.corpus import Corpus, HeldOutText
from potstill.recipe.questions import Questions
from potstill.scoring.answers import reference
from potstill.text.corpus import Tally, split_text
from potstill.text.layouts import LAYOUTS, packed, windows
from potstill.text.questions import Question, split_questions
from potstill.words import UserError

DOCUMENTS_AT_ONCE = 1000
TOKENS = Features({"input_ids": List(Value("int32"))})
QUESTION = Features({name: Value("string") for name in ("id", "question", "reference", "columns")})
DOCUMENT = Features({"text": Value("string"), "input_ids": List(Value("int32"))})
HELD_OUT_SEED = 0
"""Which sequences are held out is drawn once, and is the same for every run and every seed of training."""

Row = tuple[str, list[int]]
"""A held-out text, and its tokens."""


def run(work: Work) -> Made:
    """Make the training samples and what is held out."""
    corpus = work.recipe.corpus
    return _of_questions(work, corpus) if isinstance(corpus, Questions) else _of_text(work, corpus)


def _of_questions(work: Work, corpus: Questions) -> Made:
    split = split_questions(corpus)
    parts = {"train": split.train, "held_out": split.held_out}
    if corpus.validation is not None:
        parts["validation"] = split.validation
    for each in split.held_out:
        _check_reference(each)
    for name, questions in parts.items():
        columns = {key: [getattr(each, key) for each in questions] for key in ("id", "question", "reference")}
        _save(
            columns | {"columns": [json.dumps(each.columns, default=str) for each in questions]}, QUESTION, work, name
        )
    counts = {f"{name}_questions": len(questions) for name, questions in parts.items()}
    made = f"{len(split.train):,} questions to train on, {len(split.held_out):,} held out"
    aside = f", {len(split.validation):,} set aside to choose by" if split.validation else ""
    say(f"  {made}{aside}, {split.repeated:,} repetitions left out")
    counts["repeated_questions"] = split.repeated
    return Made([work.folder / name for name in parts], counts | {"made": made})


def _check_reference(question: Question) -> None:
    """What is judged needs a final answer to be judged by."""
    try:
        reference(question.reference)
    except UserError as error:
        raise UserError(f"{question.id}: {error}") from error


def _of_text(work: Work, corpus: Corpus) -> Made:
    for teacher in ready.existing_teachers(work):
        teacher.check_length(corpus.sequence_length, "corpus.sequence_length")
    tokenizer = ready.tokenizer(work)
    separator = separator_ids(tokenizer, corpus.separator)

    tallies: dict[str, Tally] = {}
    split = split_text(corpus, tallies)
    say(shown(tallies))
    say(f"  {len(split.train) + len(split.held_out):,} distinct documents, {split.repeated:,} repetitions left out")
    if not split.train or not split.held_out:
        side = "training" if not split.train else "held-out"
        raise UserError(
            f"`corpus.sources` give {len(split.train) + len(split.held_out)} documents and with "
            f"`corpus.held_out` none of them is a {side} one; give more text or another share"
        )

    tokens = _tokenized(tokenizer, split.train, separator, "tokenizing")
    samples = LAYOUTS[corpus.layout](tokens, corpus.sequence_length)
    train = list(_first_tokens(samples, corpus.train_tokens))
    if not train:
        raise UserError(
            f"`corpus.sources` give fewer than `corpus.sequence_length: {corpus.sequence_length}` training tokens; "
            "give more text or a shorter length"
        )
    held_tokens = _tokenized(tokenizer, split.held_out, separator, "tokenizing held-out text")
    if isinstance(corpus.held_out, HeldOutText):
        validation, held_out = _drawn(tokenizer, held_tokens, corpus)
    else:
        validation, held_out = _set_aside(list(zip(split.held_out, held_tokens, strict=True)), corpus)

    _save({"input_ids": train}, TOKENS, work, "train")
    _save(
        {"text": [text for text, _ in held_out], "input_ids": [ids for _, ids in held_out]}, DOCUMENT, work, "held_out"
    )
    if validation:
        _save({"input_ids": validation}, TOKENS, work, "validation")
    counts = {
        "train_samples": len(train),
        "train_tokens": sum(map(len, train)),
        "train_documents": len(split.train),
        "held_out_documents": len(held_out),
        "held_out_tokens": sum(len(ids) for _, ids in held_out),
        "validation_samples": len(validation),
        "repeated_documents": split.repeated,
        "sources": {name: asdict(tally) for name, tally in tallies.items()},
    }
    say(f"  {counts['train_tokens']:,} training tokens in {counts['train_samples']:,} samples")
    say(f"  {counts['held_out_tokens']:,} held-out tokens in {counts['held_out_documents']:,} documents")
    made = f"{counts['train_samples']:,} samples to train on, {counts['held_out_documents']:,} documents held out"
    folders = ["train", "held_out", *(["validation"] if validation else [])]
    return Made([work.folder / name for name in folders], counts | {"made": made})


def shown(tallies: dict[str, Tally]) -> str:
    """Words and bytes of each source, as they were read and as they were cleaned."""
    rows: list[Sequence[str]] = [("source", "documents", "words", "bytes", "words, cleaned", "bytes, cleaned")]
    whole = Tally()
    for name, tally in tallies.items():
        rows.append((name, *_figures(tally)))
        whole = Tally(whole.documents + tally.documents, whole.read + tally.read, whole.cleaned + tally.cleaned)
    if len(tallies) > 1:
        rows.append(("in all", *_figures(whole)))
    return table(rows)


def _figures(tally: Tally) -> list[str]:
    counts = (tally.documents, tally.read.words, tally.read.bytes, tally.cleaned.words, tally.cleaned.bytes)
    return [f"{count:,}" for count in counts]


def _drawn(tokenizer: Any, documents: Iterator[list[int]], corpus: Corpus) -> tuple[list[list[int]], list[Row]]:
    """Sequences of a held-out text of its own: those to choose weights by, and those to judge by."""
    assert isinstance(corpus.held_out, HeldOutText)
    sequences = list(packed(documents, corpus.sequence_length))
    aside = corpus.validation or 0
    if len(sequences) < aside + corpus.held_out.sequences:
        raise UserError(
            f"`corpus.held_out.sources` give {len(sequences):,} sequences of {corpus.sequence_length} tokens, fewer "
            f"than the {corpus.held_out.sequences:,} of `corpus.held_out.sequences`"
            + (f" and the {aside:,} of `corpus.validation`; lower them" if aside else "; lower it")
        )
    drawn = random.Random(HELD_OUT_SEED).sample(sequences, aside + corpus.held_out.sequences)
    return drawn[:aside], [(tokenizer.decode(ids), ids) for ids in drawn[aside:]]


def _set_aside(held_out: list[Row], corpus: Corpus) -> tuple[list[list[int]], list[Row]]:
    """Whole held-out documents, from the end of their order, until they give the sequences to choose weights by."""
    validation: list[list[int]] = []
    kept = list(held_out)
    while kept and len(validation) < (corpus.validation or 0):
        _, ids = kept.pop()
        # Whole ones only: the mean over sequences is then the mean over tokens.
        validation += [
            window for window in windows(ids, corpus.sequence_length) if len(window) == corpus.sequence_length
        ]
    if not kept:
        raise UserError(
            f"`corpus.validation: {corpus.validation}` leaves none of {len(held_out):,} held-out documents to judge "
            "by; lower it, or hold out more"
        )
    return validation[: corpus.validation], kept


def separator_ids(tokenizer: Any, separator: str | None) -> list[int]:
    """The token that stands before each document, or no token.

    Raises:
        UserError: the tokenizer has no such token, or none to choose by itself.
    """
    if separator == "":
        return []
    if separator is None:
        for found in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            if found is not None:
                return [found]
        raise UserError("the tokenizer has neither a beginning nor an end token; name one as `corpus.separator`")
    number = tokenizer.get_vocab().get(separator)
    if number is None:
        raise UserError(f"`corpus.separator`: the tokenizer has no token {separator!r}")
    return [number]


def _tokenized(tokenizer: Any, documents: Sequence[str], separator: list[int], what: str) -> Iterator[list[int]]:
    with progress(what, len(documents), "documents") as advance:
        for start in range(0, len(documents), DOCUMENTS_AT_ONCE):
            batch = list(documents[start : start + DOCUMENTS_AT_ONCE])
            for ids in tokenizer(batch, add_special_tokens=False, verbose=False).input_ids:
                yield [*separator, *ids]
            advance(len(batch))


def _first_tokens(samples: Iterator[list[int]], limit: int | None) -> Iterator[list[int]]:
    total = 0
    for sample in samples:
        total += len(sample)
        if limit is not None and total > limit:
            return
        yield sample


def _save(columns: dict[str, list[Any]], features: Features, work: Work, name: str) -> None:
    partial = work.folder / f".{name}.partial"
    remove(partial)
    Dataset.from_dict(columns, features=features).save_to_disk(partial)
    remove(work.folder / name)
    partial.rename(work.folder / name)
