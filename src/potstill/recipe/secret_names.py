"""Secrets: passwords, tokens and keys of online services. A run folder keeps its recipe as plain text, so a recipe must
hold none of them."""

import re
from collections.abc import Mapping
from typing import Any

ADVICE = "is a secret, and a run folder keeps its recipe as plain text; remove it, and set `HF_TOKEN` in the "
ADVICE += "environment or use `hf auth login`"

SECRET = re.compile(
    r"(^|_)(password|passwd|passphrase|secrets?|credentials?|authorization|bearer|api_?tokens?"
    r"|(api|access|secret|private|account|auth|client|storage|encryption|ssh)_?keys?)($|_(value|id|string)$)"
)
"""Names of secrets, in the form of `_words`."""

TOKEN = re.compile(r"(^|_)(auth)?token$")
"""Names of one token; `*_tokens` are counts. A token may also be a part of text."""

SPECIAL_TOKEN = re.compile(
    r"^(additional|audio|bos|boi|boa|class|cls|decoder_start|end|eod|eoi|eoa|eos|eot|eom|extra|fim|image|mask|pad|prefix"
    r"|sep|special|start|stop|suffix|suppress|think|tool|unk|video|vision)_(\w+_)?tokens?$"
)
"""Names of tokens that are parts of text."""

SECRET_VALUE = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|\bgh[opsu]_[A-Za-z0-9]{20,}|://[^/\s:@]+:[^/\s@]+@"
)
"""Texts that are secrets whatever their names are: tokens of the hub and of other services, and a URL's password."""


def holds_secret(name: str, value: Any) -> bool:
    """Whether a key of another library's settings gives a secret. A section of keys is none itself."""
    if value is None or isinstance(value, bool | Mapping):
        return False
    if names_secret(name) or is_secret(value):
        return True
    texts = [text for text in (value if isinstance(value, list | tuple) else [value]) if isinstance(text, str)]
    words = _words(name)
    return bool(TOKEN.search(words)) and not SPECIAL_TOKEN.match(words) and not all(map(_is_special, texts))


def names_secret(name: str) -> bool:
    """Whether this name is one of a secret, whatever its value is."""
    return bool(SECRET.search(_words(name)))


def is_secret(value: Any) -> bool:
    """Whether a text is a secret, whatever its name is."""
    return isinstance(value, str) and bool(SECRET_VALUE.search(value))


def find_secret(value: Any, key: str = "") -> str | None:
    """The dotted key of the first secret in another library's settings; None if there is none."""
    if isinstance(value, Mapping):
        named = [(str(name), one) for name, one in value.items()]
    elif isinstance(value, list | tuple):
        named = [(str(at), one) for at, one in enumerate(value)]
    else:
        return None
    for name, one in named:
        whole = f"{key}.{name}" if key else name
        if holds_secret(name, one) or (one and isinstance(one, Mapping) and names_secret(name)):
            return whole
        if (deeper := find_secret(one, whole)) is not None:
            return deeper
    return None


def without_secret(override: str) -> str:
    """A `KEY=VALUE` for messages: the value is replaced by `...` if it may be a secret."""
    key, equals, value = override.partition("=")
    if not any(names_secret(word) or TOKEN.search(word) for word in re.findall(r"\w+", override)):
        return "..." if is_secret(key) else f"{key}=..." if is_secret(value) else override
    return f"{key}=..." if equals else "..."


def _words(name: str) -> str:
    """A name as lower-case words with `_` between them: `hub-token`, `hubToken` and `HUB_TOKEN` are `hub_token`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).lower()


def _is_special(text: str) -> bool:
    """Whether a text is written as tokenizers write special tokens: `<s>`, `<|endoftext|>`, `[PAD]`."""
    return bool(re.fullmatch(r"<[^<>]+>|\[[^\[\]]+\]", text))
