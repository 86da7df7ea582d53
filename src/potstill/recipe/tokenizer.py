"""`tokenizer:` — the tokenizer of a run. It is needed if no teacher has one yet, or if a teacher's has too many
tokens."""

from typing import Annotated

from pydantic import Field, Tag

from potstill.recipe.section import Section, discriminated_by

BYTES = 256
"""The number of tokens in the alphabet of a byte-level tokenizer."""


MOST_TOKENS = 2**20
"""The largest vocabulary that a run trains. The largest that is published has 901,629 tokens."""


class TokenizerBase(Section):
    pad_token: str = "<pad>"
    """The token that fills up shorter samples. Default: `<pad>`."""

    bos_token: str = "<s>"
    """The beginning-of-text token. Default: `<s>`."""

    eos_token: str = "</s>"
    """The end-of-text token. Default: `</s>`."""


class TrainedTokenizer(TokenizerBase):
    """A byte-level BPE tokenizer, trained on the training documents only. It applies NFKC and puts a space before the
    first word."""

    vocab_size: int = Field(ge=BYTES + 3, le=MOST_TOKENS)
    """The number of tokens, including the three special tokens and the 256 bytes. With 259 there are only those, and
    each digit is one token."""

    min_frequency: int = Field(2, ge=1)
    """A pair that occurs less often is not merged. Default: 2."""


class TokenizerFile(TokenizerBase):
    """A tokenizer that exists already."""

    file: str
    """A `tokenizer.json` file, as the `tokenizers` library writes it. It must contain the special tokens."""


class CutTokenizer(Section):
    """A teacher's own tokenizer without the merges that it learned last. Ids do not change, so students and teachers
    are compared on the ids that they share. A student made from a teacher loses the other rows of its embeddings and
    head."""

    teacher: str
    """The name of one of `teachers`."""

    vocab_size: int = Field(ge=2)
    """The number of first tokens to keep. Special tokens and bytes must be among them."""


Tokenizer = Annotated[
    Annotated[CutTokenizer, Tag("<teacher>")]
    | Annotated[TrainedTokenizer, Tag("<vocab_size>")]
    | Annotated[TokenizerFile, Tag("<file>")],
    discriminated_by("teacher", "vocab_size", "file"),
]
