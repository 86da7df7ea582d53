"""Documents of a recipe's corpus: reads, cleans, counts and splits them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.data.babylm_cleaning import Counts, RuleSet, clean, count, source_of
from potstill.data.conversations.split import split_conversations
from potstill.data.conversations.tally import ChatTally
from potstill.data.questions import split_questions
from potstill.data.row_teachers import RowTeachers
from potstill.data.sources import Document, documents, files_of
from potstill.data.splitting import DocumentSplit, split_documents, split_from
from potstill.data.stored_texts import TaughtText
from potstill.errors import UserError
from potstill.recipe.conversations import Conversations
from potstill.recipe.corpus import Cleaning, Corpus, HeldOutText, NamedSource, PathSource, Source
from potstill.recipe.questions import Questions

NO_TEXT = Counts(words=0, bytes=0)


@dataclass
class SourceCounts:
    """The size of one file or data set, before and after cleaning."""

    documents: int = 0
    read: Counts = NO_TEXT
    cleaned: Counts = NO_TEXT

    def add(self, text: str, cleaned: str) -> None:
        """Count one document."""
        self.documents += 1
        read = count(text)
        self.read += read
        self.cleaned += read if cleaned is text else count(cleaned)


def split_text(
    corpus: Corpus,
    tallies: dict[str, SourceCounts],
    folder: Path | None = None,
    taught: RowTeachers | None = None,
) -> DocumentSplit:
    """The distinct documents to train on and to hold out; fills `tallies` with one entry per source.

    Args:
        corpus: the recipe's section.
        tallies: the size of each source.
        folder: the folder of the temporary file that holds the documents; see ``stored_texts.TextStore``.
        taught: says which teachers a row has; None where rows have none of their own.

    Raises:
        UserError: a source is missing or empty, cannot be read, or has no cleaning rules.
    """
    train = texts(corpus.sources, corpus.cleaning, "corpus.sources", tallies, taught)
    if not isinstance(corpus.held_out, HeldOutText):
        return split_documents(train, corpus.held_out, folder)
    apart = None if taught is None else RowTeachers(taught.rules)
    held_out = texts(corpus.held_out.sources, corpus.cleaning, "corpus.held_out.sources", tallies, apart)
    return split_from(train, held_out, folder)


def training_text(corpus: Corpus | Questions | Conversations, folder: Path | None = None) -> Sequence[str]:
    """The text to train a tokenizer on: the training documents, questions with their references, or conversations.

    Raises:
        UserError: as :func:`split_text` and :func:`split_questions`; or the corpus is a stream.
    """
    if not isinstance(corpus, Questions) and corpus.streams:
        raise UserError(
            "`tokenizer.vocab_size`: no tokenizer can be trained on a stream, which is never read as a whole; give "
            "`tokenizer.file`, or a corpus without `stream`"
        )
    if isinstance(corpus, Questions):
        return [f"{each.question}\n\n{each.reference}" for each in split_questions(corpus).train]
    if isinstance(corpus, Conversations):
        return [chat.text for chat in split_conversations(corpus, ChatTally()).train]
    return split_text(corpus, {}, folder).train


def texts(
    sources: Sequence[Source],
    cleaning: Cleaning | None,
    key: str,
    tallies: dict[str, SourceCounts],
    taught: RowTeachers | None = None,
) -> Iterator[TaughtText]:
    """The documents of sources, one source after the other; see :func:`texts_of`."""
    for index, source in enumerate(sources):
        yield from texts_of(source, cleaning, f"{key}.{index}", tallies, taught)


def texts_of(
    source: Source,
    cleaning: Cleaning | None,
    key: str,
    tallies: dict[str, SourceCounts],
    taught: RowTeachers | None = None,
) -> Iterator[TaughtText]:
    """The cleaned documents of one source; each is counted in `tallies`.

    Raises:
        UserError: the source, which `key` names, is missing or empty, cannot be read, or has no cleaning rules.
    """
    if cleaning is not None and isinstance(source, PathSource | NamedSource):
        _check_not_empty(source, key)
    for document in documents(source, key, taught):
        text = document.text if cleaning is None else _cleaned(document, cleaning.rules)
        tallies.setdefault(document.origin, SourceCounts()).add(document.text, text)
        yield TaughtText(text, document.teachers)


def _cleaned(document: Document, rules: RuleSet) -> str:
    text = clean(source_of(Path(document.origin)), document.text, rules)
    if not text.strip():
        raise UserError(
            f"{document.origin} holds no text once cleaned (`corpus.cleaning.rules: {rules}`); leave it out"
        )
    return text


def _check_not_empty(source: PathSource | NamedSource, key: str) -> None:
    """Refuse empty files: each file of BabyLM is a whole source, and without it the corpus would be another one."""
    for file in files_of(source, key):
        source_of(file)
        if not file.stat().st_size:
            raise UserError(f"`{key}`: {file} is empty; give the whole source, or move the file away")
