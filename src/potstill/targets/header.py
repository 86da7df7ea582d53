"""The header: what a store says of itself, and the refusal of one that says something else than was expected."""

import hashlib
import json
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
    """Where a store's targets come from. ``teacher`` is a name for people; the others must agree when it is read."""

    teacher: str
    """The teacher as the recipe calls it."""
    revision: str
    """Fingerprint of the teacher's weights and settings."""
    tokenizer: str
    """Fingerprint of the tokenizer that made the token ids."""
    template: str
    """Fingerprint of the template around the teacher's text; "none" for plain text."""


@dataclass(frozen=True)
class Header:
    """All that a store is, known before its first record is written and never changed."""

    provenance: Provenance
    codec: Codec
    samples: int
    tokens: int
    samples_per_shard: int
    plan: str
    """blake2b-128 of every sample's key and count, in order."""
    head: dict[str, Any] | None = None
    """The teacher's head beside hidden states: scale, softcap and the fingerprint of its file."""

    @property
    def shards(self) -> int:
        """How many pairs of files the store has."""
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


def plan_digest(planned: np.ndarray) -> str:
    """What :attr:`Header.plan` says of samples given as ENTRY, whatever their checksums."""
    digest = hashlib.blake2b(np.ascontiguousarray(planned["key"]).tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(planned["count"]).tobytes())
    return digest.hexdigest()


def write_header(store: Path, header: Header) -> None:
    """Write the header, whole or not at all; the caller holds the folder's lock."""
    content = header.describe()
    text = json.dumps(content | {"checksum": _digest(content)}, indent=2)
    write_atomically(store / NAME, text.encode())


def read_header(store: Path) -> Header:
    """The header of a store.

    Raises:
        UserError: no store, one of another version, or a header that was changed.
    """
    path = store / NAME
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{store} holds no captured targets ({NAME}): make them with `potstill capture`.") from None
    except ValueError:
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
        UserError: naming what differs, on both sides.
    """
    for name in ("revision", "tokenizer", "template"):
        have, want = getattr(found, name), getattr(expected, name)
        if have != want:
            raise UserError(
                f"the targets in {store} were captured with teacher {found.teacher!r} and {name} {have!r}, but teacher "
                f"{expected.teacher!r} and {name} {want!r} are expected: capture them again with `potstill capture`."
            )


def expect_same(store: Path, found: Header, wanted: Header) -> None:
    """Refuse to go on with a store that was begun for something else.

    Raises:
        UserError: naming what differs, on both sides.
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
    """What two headers must share to be one store, under the names that people know."""
    return {
        **codec_settings(header.codec),
        "number of samples": header.samples,
        "number of tokens": header.tokens,
        "samples per shard": header.samples_per_shard,
        "the samples of fingerprint": header.plan,
        "the head": header.head,
    }
