"""Tokenizer: a fast tokenizer as llama.cpp reads it: its kind, tokens, merges, special tokens and chat template.

llama.cpp has no description of how a text is split before its merges, only names of known ways. The way is recognised
by its parts in `tokenizer.json`, not by a hash of what it makes of one text, as llama.cpp's own converter does: so
tokenizers that a run trained or cut are recognised too.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType

from potstill.errors import UserError

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER_LOWER = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+{0}|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*{0}"
)
OTHER_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BY_PATTERN: Mapping[tuple[str, bool], str] = {
    (rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{REST}", False): "qwen2",
    (rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}", False): "smaug-bpe",
    (rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}", True): "llama-bpe",
    (rf"{UPPER_LOWER.replace('{0}', CONTRACTIONS + '?')}|\p{{N}}{{1,3}}|{OTHER_REST}", False): "gpt-4o",
    (rf"{UPPER_LOWER.replace('{0}', '')}|\p{{N}}|{OTHER_REST}", True): "tekken",
}
"""llama.cpp's name of a way to split, by its pattern, and by whether a whole word that is a token needs no merges."""
GPT2, DIGITS_AND_GPT2 = "gpt-2", "smollm"
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
SPACE = "▁"


@dataclass(frozen=True)
class TokenizerKind:
    """How llama.cpp turns text into tokens."""

    model: str
    """`gpt2`: merges of bytes. `llama`: merges of characters, as SentencePiece makes them."""
    pre: str
    """The way in which a text is split first."""
    adds_space: bool = False
    """Whether llama.cpp puts a space before a text, as the tokenizer does."""
    notes: tuple[str, ...] = ()
    """In what llama.cpp differs from the tokenizer, for readers."""


def kind_of(tokenizer: Any) -> TokenizerKind:
    """How llama.cpp has to read text to get a tokenizer's tokens.

    Args:
        tokenizer: of transformers.

    Raises:
        UserError: llama.cpp has no such tokenizer.
    """
    content = _content(tokenizer)
    model = content["model"]
    if model["type"] != "BPE":
        raise _refusal(f"it is a {model['type']} model, and only BPE is converted")
    normalizers, splitters = (
        _flat(content["normalizer"], "normalizers"),
        _flat(content["pre_tokenizer"], "pretokenizers"),
    )
    if any(step["type"] == "ByteLevel" for step in splitters):
        return _of_bytes(normalizers, splitters, bool(model.get("ignore_merges")))
    return _of_characters(normalizers, splitters, model)


def prepared_text(tokenizer: Any, text: str) -> str:
    """A text as llama.cpp must get it, to read the tokens that a tokenizer gives (see :attr:`TokenizerKind.notes`)."""
    backend = tokenizer.backend_tokenizer
    content = _content(tokenizer)
    if content["normalizer"] is not None and kind_of(tokenizer).model == "gpt2":
        text = backend.normalizer.normalize_str(text)
    adds = starts_with_space(tokenizer) and text and not text[0].isspace()
    return f" {text}" if adds else text


def starts_with_space(tokenizer: Any) -> bool:
    """Whether a tokenizer of bytes puts a space before a text, which llama.cpp does not."""
    splitters = _flat(_content(tokenizer)["pre_tokenizer"], "pretokenizers")
    return any(step["type"] == "ByteLevel" and step["add_prefix_space"] for step in splitters)


def _refusal(why: str) -> UserError:
    return UserError(
        f"`export.to`: llama.cpp has no tokenizer like the student's ({why}); export `merged` or `int8`, which "
        "transformers runs"
    )


def _content(tokenizer: Any) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refusal("it has no tokenizer.json")
    found: dict[str, Any] = json.loads(backend.to_str())
    return found


def _flat(step: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """The steps of a sequence, or a single step."""
    if step is None:
        return []
    return [one for each in step[inner] for one in _flat(each, inner)] if step["type"] == "Sequence" else [step]


def _of_bytes(normalizers: list[dict[str, Any]], splitters: list[dict[str, Any]], whole_words: bool) -> TokenizerKind:
    notes = []
    if odd := [step["type"] for step in normalizers if step["type"] not in ("NFC", "NFKC")]:
        raise _refusal(f"it changes text by {odd[0]}")
    if normalizers:
        notes.append(f"llama.cpp does not normalise text by {normalizers[0]['type']}; do that before it reads a text")
    *before, last = splitters
    if last["type"] != "ByteLevel" or any(step["type"] == "ByteLevel" for step in before):
        raise _refusal("it splits text after it was turned into bytes")
    if last["add_prefix_space"]:
        notes.append("llama.cpp puts no space before a text; begin texts with one")
    return TokenizerKind("gpt2", _pre(before, last["use_regex"], whole_words), notes=tuple(notes))


def _pre(before: list[dict[str, Any]], by_gpt2: bool, whole_words: bool) -> str:
    if by_gpt2 and not before:
        return GPT2
    if by_gpt2 and [step["type"] for step in before] == ["Digits"] and before[0]["individual_digits"]:
        return DIGITS_AND_GPT2
    if len(before) == 1 and before[0]["type"] == "Split" and not by_gpt2 and not before[0]["invert"]:
        pattern = before[0]["pattern"].get("Regex")
        if (pattern, whole_words) in BY_PATTERN and before[0]["behavior"] == "Isolated":
            return BY_PATTERN[pattern, whole_words]
    raise _refusal("it splits text in a way that llama.cpp does not know")


def _of_characters(
    normalizers: list[dict[str, Any]], splitters: list[dict[str, Any]], model: dict[str, Any]
) -> TokenizerKind:
    if not model.get("byte_fallback"):
        raise _refusal("it has neither bytes nor a fallback to them")
    prefix = [step for step in normalizers if step["type"] == "Prepend" and step["prepend"] == SPACE]
    prefix += [step for step in splitters if step["type"] == "Metaspace" and step["prepend_scheme"] != "never"]
    known = {"Prepend", "Replace", "Metaspace", "Split"}
    if odd := [step["type"] for step in [*normalizers, *splitters] if step["type"] not in known]:
        raise _refusal(f"it changes or splits text by {odd[0]}")
    return TokenizerKind("llama", "default", adds_space=bool(prefix))


def add_tokenizer(writer: GGUFWriter, tokenizer: Any, rows: int, ends: list[int]) -> None:
    """Write a tokenizer.

    Args:
        writer: of the file.
        tokenizer: of transformers.
        rows: the ids of the model; those without a token are padding.
        ends: the ids after which the model stops, the tokenizer's own first.

    Raises:
        UserError: llama.cpp has no such tokenizer.
    """
    kind, content = kind_of(tokenizer), _content(tokenizer)
    merges = [
        tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in content["model"]["merges"]
    ]
    tokens, types = zip(*_tokens(tokenizer, content, rows, kind), strict=True)
    writer.add_tokenizer_model(kind.model)
    writer.add_tokenizer_pre(kind.pre)
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(types))
    if kind.model == "gpt2":
        writer.add_token_merges([" ".join(merge) for merge in merges])
    else:
        writer.add_token_scores(_scores(tokens, merges))
    writer.add_add_space_prefix(kind.adds_space)
    _add_special_tokens(writer, tokenizer, ends)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(template_of(tokenizer))


def template_of(tokenizer: Any) -> str | None:
    """The chat template that a tokenizer uses by itself; None if it has none."""
    given = tokenizer.chat_template
    return given.get("default") if isinstance(given, dict) else given


def _tokens(tokenizer: Any, content: dict[str, Any], rows: int, kind: TokenizerKind) -> Iterator[tuple[str, TokenType]]:
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    added = {one["id"]: one for one in content["added_tokens"]}
    for number in range(rows):
        token = by_id.get(number)
        if token is None:
            yield f"[PAD{number}]", TokenType.UNUSED
        elif number in added:
            special = added[number]["special"]
            # llama.cpp finds these in the text as it is.
            yield (
                token if special else token.replace(SPACE, " "),
                TokenType.CONTROL if special else TokenType.USER_DEFINED,
            )
        else:
            is_byte = kind.model == "llama" and BYTE.fullmatch(token)
            yield token, TokenType.BYTE if is_byte else TokenType.NORMAL


def _scores(tokens: tuple[str, ...], merges: list[tuple[str, ...]]) -> list[float]:
    """Scores by which SentencePiece's algorithm merges in the order of the merges."""
    rank: dict[str, int] = {}
    for place, merge in enumerate(merges):
        rank.setdefault("".join(merge), place)
    return [-float(rank.get(token, len(merges))) for token in tokens]


def _add_special_tokens(writer: GGUFWriter, tokenizer: Any, ends: list[int]) -> None:
    roles = {"bos": tokenizer.bos_token_id, "unk": tokenizer.unk_token_id, "pad": tokenizer.pad_token_id}
    # llama.cpp stops at three kinds of ends: of a text, of a turn and of a message.
    roles |= dict(zip(("eos", "eot", "eom"), ends, strict=False))
    for role, number in roles.items():
        if number is not None:
            getattr(writer, f"add_{role}_token_id")(number)
    writer.add_add_bos_token(adds_bos(tokenizer))
    ids = tokenizer("a").input_ids
    writer.add_add_eos_token(tokenizer.eos_token_id is not None and ids[-1:] == [tokenizer.eos_token_id])


def adds_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer puts its beginning-of-text token before every text."""
    return tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
