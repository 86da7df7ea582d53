"""Text samples: samples of `text`, or of `prompt` and `completion`, become tokens by the rules of TRL's SFTTrainer."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from potstill.data.column_names import column_names
from potstill.errors import UserError

PAIR = ("prompt", "completion")


@dataclass(frozen=True)
class TextReader:
    """Tokenizes samples of text. Tokenized samples stay as they are.

    The end token is added to a text or completion that does not end with it, if the tokenizer has one. All tokens of a
    text are learned, and of a prompt with its completion only the completion's.

    Args:
        tokenizer: the student's tokenizer; None if the samples are tokenized.
        field: the column of the text.
        max_length: samples are cut to this number of tokens; None: they stay whole.
        positions: the number of tokens that the student can read, if it has a limit.

    Raises:
        UserError: `max_length` leaves nothing to learn.
    """

    tokenizer: Any
    field: str = "text"
    max_length: int | None = None
    positions: int | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None and (not isinstance(self.max_length, int) or self.max_length < 2):
            raise UserError(f"`max_length` is {self.max_length!r}; give a number of tokens of at least 2, or None")

    def __call__(self, sample: Mapping[str, Any]) -> Mapping[str, Any]:
        """The sample with `input_ids`, and with `completion_mask` where it has a prompt.

        Raises:
            UserError: the sample is a conversation or has nothing to learn from, its text is not a text or is too long,
                or there is no tokenizer.
        """
        if not isinstance(sample, Mapping):
            raise UserError(
                f"a sample is a {type(sample).__name__}; give each as a dictionary with `input_ids` or `{self.field}`"
            )
        if sample.get("input_ids") is not None:
            return sample
        _refuse_conversations(sample)
        if all(sample.get(name) is not None for name in PAIR):
            prompt, completion = (self._text(sample, name) for name in PAIR)
            # Tokenized together: the tokens at the seam may be other ones than those of the prompt alone.
            ids = self._ended(self._ids(prompt + completion))
            shared = takewhile(lambda pair: pair[0] == pair[1], zip(self._ids(prompt), ids, strict=False))
            start = sum(1 for _ in shared)
            return {"input_ids": self._cut(ids), "completion_mask": self._cut([0] * start + [1] * (len(ids) - start))}
        if sample.get(self.field) is not None:
            return {"input_ids": self._cut(self._ended(self._ids(self._text(sample, self.field))))}
        raise UserError(
            f"a sample has {column_names(sample)}; give tokens as `input_ids`, or texts as `{self.field}` or as "
            "`prompt` and `completion`"
        )

    def _text(self, sample: Mapping[str, Any], name: str) -> str:
        if not isinstance(sample[name], str):
            raise UserError(f"`{name}` of a sample must be a text, not {type(sample[name]).__name__}; correct it")
        if self.tokenizer is None:
            raise UserError(f"samples have `{name}` and no `input_ids`; give the tokenizer as `processing_class`")
        return sample[name]

    def _ids(self, text: str) -> list[int]:
        # Without `verbose`, a tokenizer does not warn of long texts: those are cut, or refused.
        return list(self.tokenizer(text, verbose=False)["input_ids"])

    def _ended(self, ids: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return ids if end is None or ids[-1:] == [end] else [*ids, end]

    def _cut(self, tokens: list[int]) -> list[int]:
        if self.max_length is None and self.positions is not None and len(tokens) > self.positions:
            raise UserError(
                f"a sample's text has {len(tokens):,} tokens, but the student reads at most {self.positions:,}; give "
                f"`max_length={self.positions}` to cut such texts, or split them"
            )
        return tokens[: self.max_length]


def _refuse_conversations(sample: Mapping[str, Any]) -> None:
    name = next((name for name in ("messages", *PAIR) if isinstance(sample.get(name), list)), None)
    if name is not None:
        raise UserError(
            f"`{name}` of a sample is a conversation, and conversations are read from a list or a table, not from a "
            "stream or beside other samples; give such a `Dataset`"
        )
    if sample.get("prompt") is not None and sample.get("completion") is None:
        raise UserError(
            "samples have a `prompt` but no `completion`, and the student writes none itself; add a column "
            "`completion`, for example what the teacher answers"
        )
