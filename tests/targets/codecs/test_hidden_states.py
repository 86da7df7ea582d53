from pathlib import Path

import pytest
import torch

from potstill.errors import UserError
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget
from potstill.models.head import Head
from potstill.targets import HiddenCodec, TargetStore
from potstill.targets.codecs.logit_rows import apply_head

NONE = torch.empty(0)


def test_a_store_of_hidden_states_is_the_teacher_bit_for_bit(tmp_path, corpus, write, head, provenance) -> None:
    store = TargetStore(write(tmp_path / "store", corpus, HiddenCodec(61, 8)), provenance)
    places = [5, 2, 9]
    read = store.read([corpus.keys[place] for place in places], temperature=3.0)
    live = torch.cat([corpus.hidden(place) for place in places])
    assert isinstance(read, HiddenTarget)
    assert torch.equal(read.hidden, live)
    assert torch.equal(apply_head(read.head, read.hidden), apply_head(head, live))
    assert (read.head.scale, read.head.softcap, read.head.bias) == (head.scale, head.softcap, None)


def test_float32_states_are_kept_whole_when_asked() -> None:
    hidden, head = torch.randn(5, 8), Head(torch.randn(61, 8))
    codec = HiddenCodec(61, 8, 32)
    assert torch.equal(codec.decode(codec.encode(HiddenTarget(hidden, head), NONE), head=head).hidden, hidden)


def test_a_changed_head_is_refused(tmp_path: Path, corpus, write, provenance) -> None:
    folder = write(tmp_path / "store", corpus, HiddenCodec(61, 8))
    path = folder / "head.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"head\.safetensors"):
        TargetStore(folder, provenance).read(corpus.keys[:1])


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (LogitsTarget(torch.zeros(1, 61)), "LogitsTarget"),
        (HiddenTarget(torch.zeros(1, 9), Head(torch.zeros(61, 9))), "9 numbers"),
        (HiddenTarget(torch.full((1, 8), torch.nan), Head(torch.zeros(61, 8))), "not all numbers"),
    ],
)
def test_what_cannot_be_kept_is_refused(target: HiddenTarget, says: str) -> None:
    with pytest.raises(UserError, match=says):
        HiddenCodec(61, 8).encode(target, NONE)


@pytest.mark.parametrize("settings", [{"bits": 8}, {"hidden_size": 0}])
def test_impossible_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UserError):
        HiddenCodec(**{"vocabulary": 61, "hidden_size": 8} | settings)
