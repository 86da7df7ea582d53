"""The header: describes a store, and refuses a store that differs from the expected one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import UserError
from potstill.targets.codecs.registry import Codec, codec_settings, make_codec
from potstill.targets.durable_writes import write_atomically

FORMAT = "potstill targets"
VERSION = 1
NAME = "store.json"


@dataclass(frozen=True)
class Provenance:
    """The origin of a store's targets. All fields but ``teacher``, a name for people, must match when it is read."""

    teacher: str
    """The teacher's name in the recipe."""
    revision: str
    """Fingerprint of the teacher's weights and settings."""
    tokenizer: str
    """Fingerprint of the tokenizer that made the token ids."""
    template: str
    """Fingerprint of the template around the teacher's text; "none" for plain text."""


@dataclass(frozen=True)
class Header:
    """All properties of a store. They are known before the first record is written and never change."""

    provenance: Provenance
    codec: Codec
    samples: int
    tokens: int
    samples_per_shard: int
    plan: str
    """blake2b-128 of the keys and counts of all samples, in order."""
    head: dict[str, Any] | None = None
    """The teacher's head beside hidden states: scale, softcap and the fingerprint of its file."""

    @property
    def shards(self) -> int:
        """The number of shards, each of two files."""
        return -(-self.samples // self.samples_per_shard)

    def describe(self) -> dict[str, Any]:
        """The header as it is written, without its checksum."""
        codec = codec_settings(self.codec) | {
            "record_bytes": self.codec.layout.record_bytes,
            "fields": [list(field) for field in self.codec.layout.sizes.items()],
        }
        own = asdict(self) | {"codec": codec}
        return {"format": FORMAT, "version": VERSION} | own


def _digest(content: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def plan_digest(shards: Sequence[np.ndarray]) -> str:
    """The value of :attr:`Header.plan` for samples given as ENTRY, in any parts; their checksums do not count."""
    digest = hashlib.blake2b(digest_size=16)
    for field in ("key", "count"):
        for shard in shards:
            digest.update(np.ascontiguousarray(shard[field]).view(np.uint8).data)
    return digest.hexdigest()


def write_header(store: Path, header: Header) -> None:
    """Write the header, whole or not at all; the caller holds the folder's lock."""
    content = header.describe()
    text = json.dumps(content | {"checksum": _digest(content)}, indent=2)
    write_atomically(store / NAME, text.encode())


def read_header(store: Path) -> Header:
    """The header of a store.

    Raises:
        UserError: there is no store, it has another version, or its header was changed.
    """
    path = store / NAME
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{store} holds no captured targets ({NAME}): make them with `potstill capture`.") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: delete the folder and run `potstill capture` again.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not the header of captured targets.")
    if content.get("version") != VERSION:
        raise UserError(f"{path} has format version {content.get('version')}, this potstill reads version {VERSION}.")
    if content.pop("checksum", None) != _digest(content):
        raise UserError(f"{path} is damaged (wrong checksum): delete the folder and run `potstill capture` again.")
    codec = content["codec"]
    derived = {"record_bytes", "fields"}
    settings = {name: value for name, value in codec.items() if name not in derived}
    own = {field.name: content[field.name] for field in fields(Header)}
    return Header(**own | {"codec": make_codec(**settings), "provenance": Provenance(**content["provenance"])})


def expect_provenance(store: Path, found: Provenance, expected: Provenance) -> None:
    """Refuse targets of another teacher, tokenizer or template.

    Raises:
        UserError: names the property that differs, with both values.
    """
    for name in ("revision", "tokenizer", "template"):
        have, want = getattr(found, name), getattr(expected, name)
        if have != want:
            raise UserError(
                f"the targets in {store} were captured with teacher {found.teacher!r} and {name} {have!r}, but teacher "
                f"{expected.teacher!r} and {name} {want!r} are expected: capture them again with `potstill capture`."
            )


def expect_same(store: Path, found: Header, wanted: Header) -> None:
    """Refuse to continue a store that was begun with other settings or samples.

    Raises:
        UserError: names the property that differs, with both values.
    """
    expect_provenance(store, found.provenance, wanted.provenance)
    have, want = _flat(found), _flat(wanted)
    for name in have | want:
        if have.get(name) != want.get(name):
            raise UserError(
                f"{store} was begun with {name} {have.get(name)}, and is now asked for {want.get(name)}: "
                f"give the capture another folder, or delete this one."
            )


def _flat(header: Header) -> dict[str, Any]:
    """The properties that two headers of one store must share, under names for messages."""
    return {
        **codec_settings(header.codec),
        "number of samples": header.samples,
        "number of tokens": header.tokens,
        "samples per shard": header.samples_per_shard,
        "samples with fingerprint": header.plan,
        "the head": header.head,
    }
