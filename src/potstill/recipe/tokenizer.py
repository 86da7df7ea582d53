"""`tokenizer:` — the tokenizer of a run whose teachers have none of their own yet, or more tokens than it needs."""

from typing import Annotated

from pydantic import Field, Tag

from potstill.recipe.section import Section, told_apart_by

BYTES = 256
"""The alphabet of a byte-level tokenizer."""


class TokenizerBase(Section):
    pad_token: str = "<pad>"
    """What shorter samples are filled up with."""

    bos_token: str = "<s>"
    """The beginning of a text."""

    eos_token: str = "</s>"
    """The end of a text."""


class TrainedTokenizer(TokenizerBase):
    """A byte-level BPE, trained on the training documents alone: NFKC, and a space before the first word."""

    vocab_size: int = Field(ge=BYTES + 3)
    """How many tokens, the three special ones and the 256 bytes among them; 259: those alone, and each digit is one."""

    min_frequency: int = Field(2, ge=1)
    """A pair that occurs more rarely is not merged."""


class TokenizerFile(TokenizerBase):
    """A tokenizer that exists already."""

    file: str
    """A `tokenizer.json`, as the `tokenizers` library writes it. The special tokens must be in it."""


class CutTokenizer(Section):
    """A teacher's own tokenizer without the merges that it has learned last. Ids stay what they are, so students and
    teachers are compared on the ids that they share, and a student that is made of a teacher loses the other rows of
    its embeddings and head."""

    teacher: str
    """The name of one of `teachers`."""

    vocab_size: int = Field(ge=2)
    """How many of its first tokens; special tokens and bytes must be among them."""


Tokenizer = Annotated[
    Annotated[CutTokenizer, Tag("<teacher>")]
    | Annotated[TrainedTokenizer, Tag("<vocab_size>")]
    | Annotated[TokenizerFile, Tag("<file>")],
    told_apart_by("teacher", "vocab_size", "file"),
]
