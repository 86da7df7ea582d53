"""The codecs by name, and the size of their stores."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from potstill.errors import UserError
from potstill.targets.codecs.hidden_states import HiddenCodec
from potstill.targets.codecs.sample import HybridCodec, SampledCodec
from potstill.targets.codecs.spans import SpanCodec
from potstill.targets.codecs.top_k import TopKCodec
from potstill.targets.codecs.turns import TurnCodec
from potstill.targets.shard import ENTRY

TokenCodec = TopKCodec | SampledCodec | HybridCodec | HiddenCodec
"""The codecs of distributions over one tokenizer's tokens."""

CrossingCodec = SpanCodec | TurnCodec
"""The codecs of what a teacher of another tokenizer says of text, and of turns."""

Codec = TokenCodec | CrossingCodec

_ALL = (TopKCodec, SampledCodec, HybridCodec, HiddenCodec, SpanCodec, TurnCodec)
CODECS: dict[str, Any] = {codec.mode: codec for codec in _ALL}


def make_codec(mode: str, **settings: Any) -> Codec:
    """The codec called ``mode``: top_k, sample, hybrid, hidden, spans or turns.

    Raises:
        UserError: the mode or a setting is unknown, or a setting has a wrong value.
    """
    if mode not in CODECS:
        raise UserError(f"capture.keep is {mode!r}: it must be one of {', '.join(CODECS)}.")
    known = {field.name for field in fields(CODECS[mode])}
    if unknown := sorted(set(settings) - known):
        raise UserError(f"capture.keep: {mode} has no setting {unknown[0]!r}; it takes {', '.join(sorted(known))}.")
    codec: Codec = CODECS[mode](**{name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()})
    return codec


def codec_settings(codec: Codec) -> dict[str, Any]:
    """The arguments of :func:`make_codec` for this codec, as JSON types."""
    return {"mode": codec.mode} | {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(codec).items()}


@dataclass(frozen=True)
class SizeEstimate:
    """The size of a store on disk."""

    bytes_per_token: float
    total_bytes: int


def estimate(codec: Codec, tokens: int, samples: int) -> SizeEstimate:
    """The size of a store of ``tokens`` supervised tokens in ``samples`` samples, without its header and head."""
    total = tokens * codec.layout.record_bytes + samples * ENTRY.itemsize
    return SizeEstimate(total / max(tokens, 1), total)
