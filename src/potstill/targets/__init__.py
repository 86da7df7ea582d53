"""Captured teacher targets on disk: ``potstill capture`` writes them once, and each training finds them by content."""

from potstill.targets.codecs.hidden_states import HiddenCodec
from potstill.targets.codecs.registry import Codec, SizeEstimate, estimate, make_codec
from potstill.targets.codecs.sample import HybridCodec, SampledCodec
from potstill.targets.codecs.top_k import TopKCodec
from potstill.targets.content_keys import sample_key
from potstill.targets.describe import describe
from potstill.targets.fidelity import Fidelity, fidelity
from potstill.targets.header import Provenance
from potstill.targets.store import TargetStore
from potstill.targets.writer import StoreSpec, StoreWriter

__all__ = [
    "Codec",
    "Fidelity",
    "HiddenCodec",
    "HybridCodec",
    "Provenance",
    "SampledCodec",
    "SizeEstimate",
    "StoreSpec",
    "StoreWriter",
    "TargetStore",
    "TopKCodec",
    "describe",
    "estimate",
    "fidelity",
    "make_codec",
    "sample_key",
]
