"""corpus: read the text, clean it, split it, tokenize it and lay it out.

Makes `train/` (samples), `held_out/` (documents for evaluation) and, if the recipe selects weights, `validation/`
(samples). All are plain `datasets` folders. With questions, all three hold questions and references; `strategies` makes
their prompts. With conversations, `held_out/` has conversations, `conversations/` those of the training samples, and
`audit.html` shows what is learned of them.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice, tee
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, Features, List, Value

from potstill.console import progress, say, table
from potstill.data.conversations.split import split_conversations
from potstill.data.conversations.tally import ChatTally
from potstill.data.conversations.training_rows import OF_CONVERSATION, judged, row_of
from potstill.data.documents import SourceCounts, split_text
from potstill.data.packing import LAYOUTS, Sample, TokenizedDocument, first_tokens, packed, windows
from potstill.data.questions import Question, split_questions
from potstill.data.row_teachers import TEACHERS, RowTeachers, Teachers, named
from potstill.data.stored_texts import TaughtText
from potstill.data.streaming import Stream
from potstill.data.text_runs import TEXT_RUNS, column_of
from potstill.data.tokenization import Encoder, separator_ids
from potstill.errors import UserError
from potstill.files.atomic import atomic_folder
from potstill.files.dataset_writer import dataset_writer, save_dataset
from potstill.metrics.answers.extract import reference
from potstill.pipeline import artifacts, document_texts
from potstill.pipeline.alignment import measured_alignment, save_read_by_all
from potstill.pipeline.conversation_files import AUDIT, audit_figures, save_audit, save_samples
from potstill.pipeline.row_teachers import TaughtCounts, check_matched, row_teachers, with_teachers
from potstill.pipeline.work import Made, Work
from potstill.recipe.across_tokenizers import crossing_loss, keeps_documents
from potstill.recipe.conversations import Conversations
from potstill.recipe.corpus import Corpus, HeldOutText
from potstill.recipe.questions import Questions
from potstill.recipe.row_rules import teaches_by_row

TOKENS = Features({"input_ids": List(Value("int32"))})
TOKENS_AND_DOCUMENTS = Features({**TOKENS, "documents": List(Value("int32"))})
QUESTION = Features({name: Value("string") for name in ("id", "question", "reference", "columns")})
CONVERSATION = Features({name: Value("string") for name in OF_CONVERSATION})
DOCUMENT = Features({"text": Value("string"), "input_ids": List(Value("int32"))})
MOST_SOURCE_ROWS = 20
"""Of more sources, the table has one row for all that end alike; the manifest has each of them."""

HELD_OUT_SEED = 0
"""The seed that draws held-out sequences. It is the same for every run and every seed of training."""


def run(work: Work) -> Made:
    """Make the training samples, the held-out data and the validation samples."""
    corpus = work.recipe.corpus
    if isinstance(corpus, Conversations):
        return _split_into_conversations(work, corpus)
    return _split_into_questions(work, corpus) if isinstance(corpus, Questions) else _split_into_text(work, corpus)


def _split_into_questions(work: Work, corpus: Questions) -> Made:
    taught, counted = row_teachers(work.recipe), TaughtCounts()
    split = split_questions(corpus, taught)
    parts = {"train": split.train, "held_out": split.held_out}
    if corpus.validation is not None:
        parts["validation"] = split.validation
    for each in split.held_out if work.recipe.judges_numbers else ():
        _check_reference(each)
    for name, questions in parts.items():
        kept = ("id", "question", "reference", *([] if taught is None else [TEACHERS]))
        columns = {key: [getattr(each, key) for each in questions] for key in kept}
        columns["columns"] = [json.dumps(each.columns, default=str) for each in questions]
        _save(columns, QUESTION if taught is None else with_teachers(QUESTION), work, name)
    counts: dict[str, Any] = {f"{name}_questions": len(questions) for name, questions in parts.items()}
    if taught is not None:
        for each in split.train:
            counted.add(each.teachers)
        counts |= counted.figures(work.recipe, taught, "questions")
    made = f"{len(split.train):,} questions to train on, {len(split.held_out):,} held out"
    aside = f", {len(split.validation):,} set aside to select by" if split.validation else ""
    say(f"  {made}{aside}, {split.repeated:,} repetitions left out")
    counts["repeated_questions"] = split.repeated
    return Made([work.folder / name for name in parts], counts | {"made": made})


def _check_reference(question: Question) -> None:
    """Refuse a held-out question whose reference has no final answer."""
    try:
        reference(question.reference)
    except UserError as error:
        raise UserError(f"{question.id}: {error}, or judge without numbers (`answers.number: false`)") from error


def _split_into_conversations(work: Work, corpus: Conversations) -> Made:
    crosses = crossing_loss(work.recipe) is not None
    for teacher in [] if crosses else artifacts.existing_teachers(work):
        teacher.check_length(corpus.sequence_length, "corpus.sequence_length")
    tokenizer, tally = artifacts.tokenizer(work), ChatTally()
    taught = row_teachers(work.recipe)
    counted, validated = (None, None) if taught is None else (TaughtCounts(), TaughtCounts())
    split = split_conversations(corpus, tally, taught)
    check_matched(work.recipe, taught)
    held_out = judged(split.held_out, tokenizer, corpus)
    counts: dict[str, Any] = {"held_out_conversations": len(held_out), "repeated_conversations": split.repeated}
    for name, part, of_part, by_teacher in (
        ("train", split.train, tally, counted),
        ("validation", split.validation, ChatTally(), validated),
    ):
        folder = work.folder / name
        if part and crosses and name == "train":
            counts |= save_read_by_all(work, corpus, part, tally, by_teacher)
        elif part:
            counts[f"{name}_samples"] = save_samples(folder, part, tokenizer, corpus, of_part, by_teacher)
    if not counts["train_samples"] or len(held_out) < 2:
        raise UserError(
            f"`corpus.conversations` leave {counts['train_samples']} samples to train on and {len(held_out)} "
            f"conversations to judge by, of {len(split.train)} and {len(split.held_out)} before they are rendered and "
            f"fitted into `corpus.sequence_length: {corpus.sequence_length}`; give more of them, or a greater length"
        )
    if taught is not None and counted is not None:
        counts |= counted.figures(work.recipe, taught)
    features = CONVERSATION if taught is None else with_teachers(CONVERSATION)
    parts = {"conversations": split.train, "held_out": held_out}
    if split.validation:
        parts["validation_conversations"] = split.validation
    for name, conversations in parts.items():
        rows = [row_of(one) for one in conversations]
        _save({key: [row[key] for row in rows] for key in features}, features, work, name)
    audit = save_audit(work.folder, tally, tokenizer, corpus)
    figures: dict[str, Any] = audit_figures(audit)
    tokens = f"{figures['train_tokens']:,} training tokens in {counts['train_samples']:,} samples"
    say(f"  {tokens}, {audit.share:.1%} of them supervised")
    dropped = f"{figures['dropped_rows']:,} rows dropped"
    say(f"  {len(held_out):,} conversations held out, {dropped}; see {work.folder / 'audit.html'}")
    made = f"{counts['train_samples']:,} samples to train on, {len(held_out):,} conversations held out"
    outputs = ["train", *parts, *AUDIT, *(["validation"] if split.validation else [])]
    return Made([work.folder / name for name in outputs], counts | figures | {"made": made})


def _split_into_text(work: Work, corpus: Corpus) -> Made:
    crosses = crossing_loss(work.recipe) is not None
    for teacher in [] if crosses else artifacts.existing_teachers(work):
        teacher.check_length(corpus.sequence_length, "corpus.sequence_length")
    tokenizer = artifacts.tokenizer(work)
    encoder = Encoder(tokenizer, separator_ids(tokenizer, corpus.separator))
    tallies: dict[str, SourceCounts] = {}
    make = _from_stream if corpus.streams else _from_documents
    document = with_teachers(DOCUMENT) if teaches_by_row(work.recipe) else DOCUMENT
    with dataset_writer(work.folder / "held_out", document) as write:
        held_out = _HeldOutWriter(
            write,
            0 if isinstance(corpus.held_out, HeldOutText) else _fewest_tokens(work, corpus),
            by_row=teaches_by_row(work.recipe),
        )
        with document_texts.kept_documents(work, len(encoder.separator)) as keep:
            counts, validation = make(_Making(work, corpus, encoder, tallies, keep), held_out)
        if not held_out.documents:
            raise _none_held_out(counts["train_documents"])
    if validation:
        _save({"input_ids": validation}, TOKENS, work, "validation")
    if crosses:
        counts["alignment"] = measured_alignment(work)
    counts |= document_texts.captured_sizes(work)
    counts |= {
        "held_out_documents": held_out.documents,
        "held_out_tokens": held_out.tokens,
        "validation_samples": len(validation),
        "sources": {name: asdict(tally) for name, tally in tallies.items()},
    }
    supervised = f"{counts['supervised_tokens']:,} of them supervised"
    say(f"  {counts['train_tokens']:,} training tokens in {counts['train_samples']:,} samples, {supervised}")
    say(f"  {counts['held_out_tokens']:,} held-out tokens in {counts['held_out_documents']:,} documents")
    made = f"{counts['train_samples']:,} samples to train on, {counts['held_out_documents']:,} documents held out"
    folders = ["train", "held_out", *(["validation"] if validation else [])]
    folders += [document_texts.DOCUMENTS] if keeps_documents(work.recipe) else []
    return Made([work.folder / name for name in folders], counts | {"made": made})


class _HeldOutWriter:
    """Writes held-out documents one by one, and counts them."""

    def __init__(self, write: Callable[[dict[str, Any]], None], shortest: int, by_row: bool) -> None:
        self._write, self._shortest, self._by_row = write, shortest, by_row
        self.documents = self.tokens = 0

    def add(self, text: str, ids: list[int], teachers: Teachers) -> None:
        if len(ids) < self._shortest:
            return
        self._write({"text": text, "input_ids": ids} | named(teachers if self._by_row else None))
        self.documents += 1
        self.tokens += len(ids)


class _Making(NamedTuple):
    """What the samples of a text are made with."""

    work: Work
    corpus: Corpus
    encoder: Encoder
    tallies: dict[str, SourceCounts]
    keep: document_texts.KeepDocument


def _from_documents(made: _Making, held_out: _HeldOutWriter) -> tuple[dict[str, Any], list[list[int]]]:
    """Make the corpus from documents that are read to their end. Returns its figures and the validation samples."""
    work, corpus, encoder, tallies, keep = made
    taught = row_teachers(work.recipe)
    split = split_text(corpus, tallies, work.folder, taught)
    check_matched(work.recipe, taught)
    say(source_table(tallies))
    say(f"  {len(split.train) + len(split.held_out):,} distinct documents, {split.repeated:,} repetitions left out")
    if not split.train or not split.held_out:
        raise _none_held_out(len(split.train), len(split.held_out))
    with progress("tokenizing", len(split.train), "documents") as advance:
        tokens = encoder.of_documents(split.train, advance)
        tokenized = map(keep, split.train, tokens, split.train.teachers)
        counts = _write_training_samples(work, corpus, tokenized, lambda tokens: None, taught)
    with progress("tokenizing held-out text", len(split.held_out), "documents") as advance:
        if isinstance(corpus.held_out, HeldOutText):
            tokens = encoder.of_documents(split.held_out, advance)
            tokenized = map(TokenizedDocument, tokens, split.held_out.teachers)
            validation, kept = _draw_sequences(list(packed(tokenized, corpus.sequence_length)), corpus)
            for sample in kept:
                held_out.add(encoder.tokenizer.decode(sample.input_ids), sample.input_ids, sample.teachers)
        else:
            validation, first = _set_documents_aside(split.held_out, encoder, corpus)
            texts = split.held_out[:first]
            for text, ids, teachers in zip(texts, encoder.of_documents(texts, advance), texts.teachers, strict=True):
                held_out.add(text, ids, teachers)
    return counts | {"train_documents": len(split.train), "repeated_documents": split.repeated}, validation


def _from_stream(made: _Making, held_out: _HeldOutWriter) -> tuple[dict[str, Any], list[list[int]]]:
    """Make the corpus from a stream that is read only as far as needed. Returns the same."""
    work, corpus, encoder, tallies, keep = made
    taught = row_teachers(work.recipe)
    stream, validation = Stream(corpus, tallies, taught), list[list[int]]()
    if isinstance(corpus.held_out, HeldOutText):
        sequences = packed(_tokenized(encoder, stream.held_out_text()), corpus.sequence_length)
        if corpus.held_out.streams:
            # The stream's own order is random, so the first sequences are enough.
            sequences = islice(sequences, corpus.held_out.sequences + (corpus.validation or 0))
        validation, kept = _draw_sequences(list(sequences), corpus)
        for sample in kept:
            held_out.add(encoder.tokenizer.decode(sample.input_ids), sample.input_ids, sample.teachers)

    def hold_out(document: TaughtText) -> None:
        (ids,) = encoder.encode([document.text])
        if len(validation) < (corpus.validation or 0):
            validation.extend(_whole_windows(ids, corpus))
        else:
            held_out.add(document.text, ids, document.teachers)

    assert corpus.train_tokens is not None
    with progress("reading", corpus.train_tokens, "tokens") as advance:
        read = _tokenized(encoder, stream.training(hold_out), keep)
        counts = _write_training_samples(work, corpus, read, advance, taught)
    say(source_table(tallies))
    say(f"  {stream.distinct:,} distinct documents to train on, {stream.repeated:,} repetitions left out")
    for key, documents in stream.ran_out.items():
        say(f"  `{key}` ran out after {documents:,} documents")
    if len(stream.ran_out) == len(corpus.sources):
        missing = f"{counts['supervised_tokens']:,} of the {corpus.train_tokens:,} supervised tokens"
        say(f"  all sources ran out with {missing} of `corpus.train_tokens`; give more text or ask for fewer")
    counts |= {"train_documents": stream.distinct, "repeated_documents": stream.repeated, "ran_out": stream.ran_out}
    return counts, validation[: corpus.validation or 0]


def _tokenized(
    encoder: Encoder, documents: Iterator[TaughtText], keep: document_texts.KeepDocument = document_texts.plain_document
) -> Iterator[TokenizedDocument]:
    """The tokens of a stream's documents, which are read no further than they are needed."""
    texts, again = tee(documents)
    tokens = encoder.of_stream(document.text for document in texts)
    return (keep(text, ids, teachers) for ids, (text, teachers) in zip(tokens, again, strict=True))


def _write_training_samples(
    work: Work,
    corpus: Corpus,
    documents: Iterator[TokenizedDocument],
    advance: Callable[[int], None],
    taught: RowTeachers | None,
) -> dict[str, Any]:
    """Write the training samples of tokenized documents, and count samples and tokens."""
    apart = corpus.attention == "document"
    shortest = _fewest_tokens(work, corpus)
    long_enough = (document for document in documents if len(document.ids) >= shortest)
    laid_out = LAYOUTS[corpus.layout](long_enough, corpus.sequence_length)
    samples = tokens = supervised = 0
    features, counted = document_texts.with_runs(TOKENS_AND_DOCUMENTS if apart else TOKENS, work), TaughtCounts()
    with dataset_writer(work.folder / "train", features if taught is None else with_teachers(features)) as write:
        for sample in first_tokens(laid_out, corpus.train_tokens, apart):
            row: dict[str, Any] = {"input_ids": sample.input_ids} | ({"documents": sample.documents} if apart else {})
            row |= {TEXT_RUNS: column_of(sample.runs)} if TEXT_RUNS in features else {}
            write(row if taught is None else row | named(sample.teachers))
            counted.add(sample.teachers, sample.supervised(apart))
            samples += 1
            tokens += len(sample.input_ids)
            supervised += sample.supervised(apart)
            advance(sample.supervised(apart))
        if not samples:
            raise UserError(
                f"`corpus.sources` give fewer than `corpus.sequence_length: {corpus.sequence_length}` training tokens, "
                "or `corpus.train_tokens` asks for fewer; give more text, or a shorter length"
            )
        by_teacher = {} if taught is None else counted.figures(work.recipe, taught)
    return {"train_samples": samples, "train_tokens": tokens, "supervised_tokens": supervised, **by_teacher}


def _fewest_tokens(work: Work, corpus: Corpus) -> int:
    """The fewest tokens of a used document, separator included."""
    return corpus.shortest + len(separator_ids(artifacts.tokenizer(work), corpus.separator)) if corpus.shortest else 0


def _none_held_out(train: int, held_out: int = 0) -> UserError:
    side = "held-out" if train else "training"
    return UserError(
        f"`corpus.sources` give {train + held_out} documents and with `corpus.held_out` none of them is a {side} one; "
        "give more text or another share"
    )


def source_table(tallies: dict[str, SourceCounts]) -> str:
    """A table of the words and bytes of each source, before and after cleaning; of many sources, one row a kind."""
    rows: list[Sequence[str]] = [("source", "documents", "words", "bytes", "words, cleaned", "bytes, cleaned")]
    groups: dict[str, list[str]] = {}
    for name in tallies:
        groups.setdefault(f"*{Path(name).suffix}" if len(tallies) > MOST_SOURCE_ROWS else name, []).append(name)
    for shown, names in groups.items():
        several = f"{shown} ({len(names)} sources)" if len(names) > 1 else names[0]
        rows.append((several, *_figures(_in_all(tallies[name] for name in names))))
    if len(groups) > 1:
        rows.append(("in all", *_figures(_in_all(tallies.values()))))
    return table(rows)


def _in_all(tallies: Iterable[SourceCounts]) -> SourceCounts:
    whole = SourceCounts()
    for tally in tallies:
        whole = SourceCounts(whole.documents + tally.documents, whole.read + tally.read, whole.cleaned + tally.cleaned)
    return whole


def _figures(tally: SourceCounts) -> list[str]:
    counts = (tally.documents, tally.read.words, tally.read.bytes, tally.cleaned.words, tally.cleaned.bytes)
    return [f"{count:,}" for count in counts]


def _draw_sequences(sequences: list[Sample], corpus: Corpus) -> tuple[list[list[int]], list[Sample]]:
    """Draw sequences from a separate held-out text: first the validation ones, then the held-out ones."""
    assert isinstance(corpus.held_out, HeldOutText)
    aside = corpus.validation or 0
    if len(sequences) < aside + corpus.held_out.sequences:
        raise UserError(
            f"`corpus.held_out.sources` give {len(sequences):,} sequences of {corpus.sequence_length} tokens, fewer "
            f"than the {corpus.held_out.sequences:,} of `corpus.held_out.sequences`"
            + (f" and the {aside:,} of `corpus.validation`; lower them" if aside else "; lower it")
        )
    drawn = random.Random(HELD_OUT_SEED).sample(sequences, aside + corpus.held_out.sequences)
    return [sample.input_ids for sample in drawn[:aside]], drawn[aside:]


def _whole_windows(ids: list[int], corpus: Corpus) -> list[list[int]]:
    """The windows of a document that have full length, so that their mean is the mean over tokens."""
    return [window for window in windows(ids, corpus.sequence_length) if len(window) == corpus.sequence_length]


def _set_documents_aside(held_out: Sequence[str], encoder: Encoder, corpus: Corpus) -> tuple[list[list[int]], int]:
    """Take whole documents from the end of the held-out ones until they give the validation sequences.

    Returns:
        The sequences, and the number of documents that are left.
    """
    validation: list[list[int]] = []
    left = len(held_out)
    while left and len(validation) < (corpus.validation or 0):
        left -= 1
        (ids,) = encoder.encode([held_out[left]])
        validation += _whole_windows(ids, corpus)
    if not left:
        raise UserError(
            f"`corpus.validation: {corpus.validation}` leaves none of {len(held_out):,} held-out documents to judge "
            "by; lower it, or hold out more"
        )
    return validation[: corpus.validation], left


def _save(columns: dict[str, list[Any]], features: Features, work: Work, name: str) -> None:
    with atomic_folder(work.folder / name) as partial:
        save_dataset(Dataset.from_dict(columns, features=features), partial)
