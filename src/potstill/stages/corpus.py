"""corpus: read the text, split it by document, tokenize it and lay it out.

Makes `train/` (samples) and `held_out/` (whole documents), both plain `datasets` folders.
"""

from collections.abc import Iterator
from typing import Any

from datasets import Dataset, Features, List, Value

from potstill.console import progress, say
from potstill.files import remove
from potstill.pipeline import Made, Work
from potstill.teachers.huggingface import Prepared
from potstill.text.layouts import LAYOUTS
from potstill.text.sources import all_documents
from potstill.text.splitting import split_documents
from potstill.words import UserError

DOCUMENTS_AT_ONCE = 1000
TOKENS = Features({"input_ids": List(Value("int32"))})
DOCUMENT = Features({"text": Value("string"), "input_ids": List(Value("int32"))})


def run(work: Work) -> Made:
    """Make the training samples and the held-out documents."""
    corpus = work.recipe.corpus
    teachers = [Prepared.load(work.run.path("teachers") / name) for name in work.recipe.teachers]
    for teacher in teachers:
        teacher.check_length(corpus.sequence_length, "corpus.sequence_length")
    tokenizer = teachers[0].tokenizer()
    separator = separator_id(tokenizer, corpus.separator)

    split = split_documents(all_documents(corpus.sources), corpus.held_out)
    say(f"  {len(split.train) + len(split.held_out):,} distinct documents, {split.repeated:,} repetitions left out")
    if not split.train or not split.held_out:
        side = "training" if not split.train else "held-out"
        raise UserError(
            f"`corpus.sources` give {len(split.train) + len(split.held_out)} documents and with "
            f"`corpus.held_out: {corpus.held_out}` none of them is a {side} one; give more text or another share"
        )

    tokens = _tokenized(tokenizer, split.train, separator, "tokenizing")
    samples = LAYOUTS[corpus.layout](tokens, corpus.sequence_length)
    train = list(_first_tokens(samples, corpus.train_tokens))
    if not train:
        raise UserError(
            f"`corpus.sources` give fewer than `corpus.sequence_length: {corpus.sequence_length}` training tokens; "
            "give more text or a shorter length"
        )
    held_out = list(_tokenized(tokenizer, split.held_out, separator, "tokenizing held-out text"))

    _save({"input_ids": train}, TOKENS, work, "train")
    _save({"text": split.held_out, "input_ids": held_out}, DOCUMENT, work, "held_out")
    counts = {
        "train_samples": len(train),
        "train_tokens": sum(map(len, train)),
        "train_documents": len(split.train),
        "held_out_documents": len(split.held_out),
        "held_out_tokens": sum(map(len, held_out)),
        "repeated_documents": split.repeated,
    }
    say(f"  {counts['train_tokens']:,} training tokens in {counts['train_samples']:,} samples")
    say(f"  {counts['held_out_tokens']:,} held-out tokens in {counts['held_out_documents']:,} documents")
    made = f"{counts['train_samples']:,} samples to train on, {counts['held_out_documents']:,} documents held out"
    return Made([work.folder / "train", work.folder / "held_out"], counts | {"made": made})


def separator_id(tokenizer: Any, separator: str | None) -> int:
    """The token that stands before each document.

    Raises:
        UserError: the tokenizer has no such token, or none to choose by itself.
    """
    if separator is None:
        for found in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            if found is not None:
                return found
        raise UserError("the tokenizer has neither a beginning nor an end token; name one as `corpus.separator`")
    number = tokenizer.get_vocab().get(separator)
    if number is None:
        raise UserError(f"`corpus.separator`: the tokenizer has no token {separator!r}")
    return number


def _tokenized(tokenizer: Any, documents: list[str], separator: int, what: str) -> Iterator[list[int]]:
    with progress(what, len(documents), "documents") as advance:
        for start in range(0, len(documents), DOCUMENTS_AT_ONCE):
            batch = documents[start : start + DOCUMENTS_AT_ONCE]
            for ids in tokenizer(batch, add_special_tokens=False, verbose=False).input_ids:
                yield [separator, *ids]
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
