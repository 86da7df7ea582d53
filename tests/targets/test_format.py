"""The reader in the document reads a store, and the document has the numbers of the code."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from potstill.data.stored_texts import hash_of
from potstill.losses.span_likelihood import TokenNumbers
from potstill.targets import TargetStore, TopKCodec, sample_key
from potstill.targets.codecs.layout import LINEAR, RANGE
from potstill.targets.codecs.spans import SpanCodec, SpanNumbers
from potstill.targets.codecs.turns import TurnCodec
from potstill.targets.span_slices import block_key

DOCUMENT = Path(__file__).parents[2] / "docs" / "targets-format.md"


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_reader_in_the_document_reads_a_store(tmp_path, corpus, write, provenance, temperature) -> None:
    folder = write(tmp_path / "store", corpus, TopKCodec(61, 8, temperatures=(1.0, 2.0)))
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict = {}
    exec(code, names)
    samples = dict(names["read"](folder, temperature))
    assert set(samples) == set(corpus.keys)
    store = TargetStore(folder, provenance)
    for key, tokens in samples.items():
        target = store.read([key], temperature)
        assert len(tokens) == len(target.ids)
        for row, (log_probs, tail) in enumerate(tokens):
            assert list(log_probs) == target.ids[row].tolist()
            np.testing.assert_allclose(list(log_probs.values()), target.log_probs[row], rtol=1e-5, atol=1e-5)
            assert tail == target.log_tail[row].item()


def test_the_curve_is_the_documented_one() -> None:
    assert f"`-{RANGE:g} * ({LINEAR} * u + {1 - LINEAR} * u * u)`" in DOCUMENT.read_text()


def test_the_key_is_the_documented_one() -> None:
    teacher, student, taught = [7, 8, 9], [1, 2], [True, False]
    content = np.array([3, 2, *teacher, *student], "<u4").tobytes() + bytes([0b01])
    expected = hashlib.blake2b(content, digest_size=16, person=b"potstill sample").digest()
    assert sample_key(np.array(teacher), np.array(student), np.array(taught)) == expected
    content = np.array([0, 2, *student], "<u4").tobytes() + bytes([0b01])
    expected = hashlib.blake2b(content, digest_size=16, person=b"potstill sample").digest()
    assert sample_key(np.array(student), np.array(student), np.array(taught)) == expected


def test_spans_are_the_documented_ones(tmp_path) -> None:
    document = hashlib.blake2b(b"a text", digest_size=16).digest()
    expected = hashlib.blake2b(document + bytes([3, 0, 0, 0]), digest_size=16, person=b"potstill spans").digest()
    assert block_key(hash_of("a text"), 3) == expected
    given = SpanNumbers(
        torch.tensor([-2.7, -1e-9]), torch.tensor([-0.3, -torch.inf]), torch.tensor([5, 4095]), torch.tensor([0, 1])
    )
    for row, record in enumerate(SpanCodec(4000, 256, 2048).encode(given, torch.zeros(2)).numpy()):
        number = int.from_bytes(record.tobytes(), "little")
        codes = number >> 34, number >> 13 & (1 << 21) - 1
        values = [np.array((code - 1 + (86 << 15)) << 8, "<u4").view("<f4") for code in codes]
        values = [np.inf if code == (1 << 21) - 1 else value for code, value in zip(codes, values, strict=True)]
        np.testing.assert_allclose(values, [-given.log_p[row], -given.log_mass[row]], rtol=2**-16)
        assert (number & 4095, number >> 12 & 1) == (given.step[row], given.lost[row])
        assert record.nbytes == 7


def test_turns_are_the_documented_ones() -> None:
    given = TokenNumbers(torch.tensor([-2.7, -1e-9]), torch.tensor([-0.3, -torch.inf]))
    for row, record in enumerate(TurnCodec().encode(given, torch.zeros(2)).numpy()):
        number = int.from_bytes(record.tobytes(), "little")
        assert record.nbytes == 6
        assert number >> 42 == 0
        for code, value in ((number >> 21, given.log_p[row]), (number & (1 << 21) - 1, given.log_mass[row])):
            read = np.array((code - 1 + (86 << 15)) << 8, "<u4").view("<f4") if code < (1 << 21) - 1 else np.inf
            np.testing.assert_allclose(read, -value, rtol=2**-16)


def test_the_checksums_are_the_documented_ones(store) -> None:
    header = json.loads((store / "store.json").read_text())
    claimed = header.pop("checksum")
    assert hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16).hexdigest() == claimed
    entries = [path.read_bytes() for path in sorted(store.glob("*.index"))]
    rows = [part[at : at + 24] for part in entries for at in range(0, len(part), 24)]
    plan = b"".join(row[:16] for row in rows) + b"".join(row[16:20] for row in rows)
    assert hashlib.blake2b(plan, digest_size=16).hexdigest() == header["plan"]


def test_the_example_needs_no_library() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert not re.search(r"numpy|torch", code)
    assert torch.__name__ not in code
