"""Document texts: the training documents whole, which a teacher reads for `capture.keep: spans`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features, Value, load_from_disk

from potstill.data.packing import TokenizedDocument
from potstill.data.row_teachers import TEACHERS, Teachers, named
from potstill.data.text_runs import TEXT_RUNS, DocumentTokens
from potstill.data.token_bytes import TokenBytes
from potstill.files.dataset_writer import dataset_writer
from potstill.pipeline import artifacts
from potstill.pipeline.row_teachers import with_teachers
from potstill.pipeline.work import Work
from potstill.recipe.across_tokenizers import keeps_documents
from potstill.recipe.row_rules import teaches_by_row
from potstill.teachers.capture_spans import DocumentBlocks, span_codec
from potstill.teachers.prepared import PreparedTeacher

DOCUMENTS = "documents"
"""The folder of the stage `corpus` with the training documents, where spans are captured."""

KeepDocument = Callable[[str, list[int], Teachers], TokenizedDocument]


def plain_document(text: str, ids: list[int], teachers: Teachers) -> TokenizedDocument:
    """A document that does not say where its tokens end."""
    return TokenizedDocument(ids, teachers)


def with_runs(features: Features, work: Work) -> Features:
    """The columns of samples that say which text they are of, where spans are captured."""
    return Features({**features, TEXT_RUNS: Value("binary")}) if keeps_documents(work.recipe) else features


@contextmanager
def kept_documents(work: Work, before: int) -> Iterator[KeepDocument]:
    """Gives a function that makes a document of a text, of its tokens and of its teachers.

    Where spans are captured, it keeps the text, and the document says where its tokens end in it.

    Args:
        work: the step of the corpus.
        before: the number of tokens before each document's text.
    """
    if not keeps_documents(work.recipe):
        yield plain_document
        return
    ours = TokenBytes(artifacts.tokenizer(work), "`tokenizer`")
    by_row, features = teaches_by_row(work.recipe), Features({"text": Value("large_string")})
    with dataset_writer(work.folder / DOCUMENTS, with_teachers(features) if by_row else features) as write:

        def keep(text: str, ids: list[int], teachers: Teachers) -> TokenizedDocument:
            write({"text": text} | named(teachers if by_row else None))
            return TokenizedDocument(
                ids, teachers, DocumentTokens.of(text, ours.ends(text, np.asarray(ids[before:], np.int64)), before)
            )

        yield keep


def document_blocks(folder: Path, teacher: PreparedTeacher) -> DocumentBlocks:
    """How a teacher reads the documents that a corpus has kept, and that it teaches.

    Args:
        folder: that of the stage `corpus`.
        teacher: the teacher.
    """
    tokenizer = teacher.tokenizer()
    theirs = TokenBytes(tokenizer, f"`teachers.{teacher.name}`")
    documents = load_from_disk(folder / DOCUMENTS)
    if TEACHERS in documents.column_names:
        places = [place for place, names in enumerate(documents[TEACHERS]) if teacher.name in names]
        documents = documents.select(places)
    return DocumentBlocks(documents["text"], theirs, span_codec(teacher.config(), tokenizer))


def captured_sizes(work: Work) -> dict[str, Any]:
    """Each teacher's tokens and blocks in the documents that were kept, for the summary; nothing without `spans`."""
    if not keeps_documents(work.recipe):
        return {}
    counts = {one.name: document_blocks(work.folder, one).blocks.counts for one in artifacts.existing_teachers(work)}
    return {"spans": {name: {"tokens": int(own.sum()), "blocks": len(own)} for name, own in counts.items()}}
