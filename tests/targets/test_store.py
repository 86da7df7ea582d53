import multiprocessing
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from potstill.errors import UserError
from potstill.targets import HiddenCodec, Provenance, SampledCodec, StoreSpec, StoreWriter, TargetStore, TopKCodec

again = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.lists(st.integers(0, 42), max_size=12))
@again
def test_any_samples_in_any_order_are_their_own_teacher(store, corpus, provenance, places) -> None:
    read = TargetStore(store, provenance)
    target = read.read([corpus.keys[place] for place in places])
    assert len(target.ids) == sum(corpus.counts[place] for place in places) == len(target.log_tail)
    if places:
        live = torch.log_softmax(torch.cat([corpus.logits(place) for place in places]), -1)
        assert (live.gather(1, target.ids) - target.log_probs).abs().max() < 0.2
        assert torch.equal(live.topk(8).indices.sort(-1).values, target.ids)
    assert read.counts([corpus.keys[place] for place in places]).tolist() == [corpus.counts[p] for p in places]


def test_what_was_written_comes_back_exactly(tmp_path, corpus, write, provenance) -> None:
    """With all tokens in 32 bits, no quantisation error can hide a target of the wrong sample or row."""
    store = TargetStore(write(tmp_path / "store", corpus, TopKCodec(61, 61, 32)), provenance)
    places = np.random.default_rng(1).permutation(43)
    live = torch.log_softmax(torch.cat([corpus.logits(place) for place in places]), -1)
    read = store.read([corpus.keys[place] for place in places])
    torch.testing.assert_close(read.log_probs, live, rtol=1e-6, atol=3e-6)


def test_a_sample_that_was_not_captured_is_refused_with_what_to_do(store, corpus, provenance) -> None:
    with pytest.raises(UserError, match=r"1 of 2 samples .*`potstill capture`"):
        TargetStore(store, provenance).packed([corpus.keys[0], b"never captured!!"])


def test_keys_that_agree_in_their_first_half_are_told_apart(store, provenance) -> None:
    read = TargetStore(store, provenance)
    shard = read._index.shards[1]
    halves = np.ascontiguousarray(shard["key"]).view("<u8").reshape(-1, 2)
    halves[3:9, 0] = halves[3, 0]
    shard["key"] = halves.view("V16").ravel()
    wanted = [row.tobytes() for row in halves]
    assert read.find(wanted).tolist() == list(range(16, 16 + len(shard)))
    with pytest.raises(UserError, match="1 of 1"):
        read.find([wanted[3][:8] + b"elsewher"])


@pytest.mark.parametrize("field", ["revision", "tokenizer", "template"])
def test_a_store_of_something_else_is_refused_with_both_names(store, provenance, field) -> None:
    other = replace(provenance, teacher="other", **{field: "another"})
    with pytest.raises(UserError, match=rf"'toy' and {field} '.*'other' and {field} 'another'"):
        TargetStore(store, other)


def test_the_teachers_name_alone_is_no_reason_to_refuse(store) -> None:
    assert len(TargetStore(store, Provenance("renamed", "revision 1", "tokenizer 1", "none"))) == 40


def test_an_unfinished_store_is_refused(tmp_path, corpus, write, provenance) -> None:
    write(tmp_path / "store", corpus, None, 4, 0, 2)
    with pytest.raises(UserError, match=r"not finished \(0 of 16 samples in 00001.index\)"):
        TargetStore(tmp_path / "store", provenance)


def test_no_store_is_refused(tmp_path, provenance) -> None:
    with pytest.raises(UserError, match="no captured targets"):
        TargetStore(tmp_path / "nothing", provenance)


def read_all(folder: Path, provenance: Provenance) -> None:
    for _ in TargetStore(folder, provenance).verify():
        pass


@given(data=st.data(), mode=st.sampled_from(["top_k", "hidden"]))
@again
def test_any_flipped_bit_is_refused(tmp_path, corpus, write, provenance, data, mode) -> None:
    folder = tmp_path / mode
    if not folder.exists():
        write(folder, corpus, TopKCodec(61, 8) if mode == "top_k" else HiddenCodec(61, 8))
    read_all(folder, provenance)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    broken = bytearray(whole)
    broken[bit // 8] ^= 1 << bit % 8
    path.write_bytes(broken)
    with pytest.raises(UserError, match=rf"{folder}.*"):
        read_all(folder, provenance)
    path.write_bytes(whole)


@given(data=st.data())
@again
def test_any_truncated_file_is_refused(store, provenance, data) -> None:
    path = data.draw(st.sampled_from(sorted(store.iterdir())))
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError, match=str(store)):
        read_all(store, provenance)
    path.write_bytes(whole)


def test_a_damaged_sample_is_noticed_when_it_is_read_and_no_other(store, corpus, provenance) -> None:
    path = store / "00001.records"
    data = bytearray(path.read_bytes())
    data[0] ^= 4
    path.write_bytes(data)
    read = TargetStore(store, provenance)
    read.packed(corpus.keys[:16])
    with pytest.raises(UserError, match=r"00001.records is damaged.*delete it and run"):
        read.packed(corpus.keys[:32])


def test_doing_as_the_message_says_mends_the_store(store, corpus, write, contents) -> None:
    whole = contents(store)
    (store / "00001.records").unlink()
    write(store, corpus)
    assert contents(store) == whole
    for path in store.glob("*.index"):
        path.unlink()
    write(store, corpus)
    assert contents(store) == whole


class Dataset:
    def __init__(self, corpus, places):
        self.keys, self.places = corpus.keys, places

    def __len__(self):
        return len(self.places)

    def __getitem__(self, at):
        return self.keys[self.places[at]]


class Collate:
    def __init__(self, store: TargetStore) -> None:
        self.store = store

    def __call__(self, keys: list[bytes]) -> torch.Tensor:
        return self.store.packed(keys)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_workers_read_the_same_in_every_epoch(store, corpus, provenance, workers) -> None:
    places = np.random.default_rng(0).permutation(43).tolist()
    read = TargetStore(store, provenance)
    expected = read.packed([corpus.keys[place] for place in places])
    loader = DataLoader(
        Dataset(corpus, places),
        batch_size=5,
        collate_fn=Collate(read),
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    for _ in range(2):
        assert torch.equal(torch.cat(list(loader)), expected)


@pytest.mark.slow
def test_a_spawned_worker_opens_its_own(store, corpus, provenance) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        packed = pool.apply(TargetStore(store, provenance).packed, (corpus.keys[:7],))
    assert torch.equal(packed, TargetStore(store, provenance).packed(corpus.keys[:7]))


def test_it_pickles_as_its_path(store, corpus, provenance) -> None:
    read = TargetStore(store, provenance)
    read.packed(corpus.keys)
    assert len(pickle.dumps(read)) < 1000
    assert torch.equal(pickle.loads(pickle.dumps(read)).packed(corpus.keys), read.packed(corpus.keys))


def test_files_are_mapped_and_none_stays_open(store, corpus, provenance) -> None:
    read = TargetStore(store, provenance)
    read.packed(corpus.keys)
    maps = Path("/proc/self/maps").read_text()
    assert all(str(file) in maps for file in store.glob("*.records"))
    assert all(str(file) in maps for file in store.glob("*.index"))
    held = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
    assert not [file for file in held if file.startswith(str(store))]


def test_two_teachers_over_one_corpus_are_two_stores_with_the_same_keys(tmp_path, corpus, write, provenance) -> None:
    one = TargetStore(write(tmp_path / "one", corpus), provenance).read(corpus.keys)
    two = TargetStore(write(tmp_path / "two", corpus, SampledCodec(61, 6)), provenance).read(corpus.keys)
    assert len(one.ids) == len(two.ids)


def test_a_sample_without_supervised_tokens_has_no_records(tmp_path, corpus, provenance) -> None:
    keys, counts = [b"0" * 16, corpus.keys[0], b"1" * 16], [0, corpus.counts[0], 0]
    with StoreWriter(
        StoreSpec(tmp_path / "store", TopKCodec(61, 8), provenance), keys, counts, samples_per_shard=1
    ) as writer:
        for places in writer.pending(1):
            logits = corpus.logits(0) if places[0] == 1 else torch.empty(0, 61)
            writer.write(type(corpus.target(np.array([0]), writer.codec))(logits))
    read = TargetStore(tmp_path / "store", provenance)
    assert len(read.packed(keys)) == counts[1]
    assert len(read.packed(keys[:1])) == 0
    assert read.decode(read.packed(keys[:1])).ids.shape == (0, 8)
    assert list(read.verify()) == [1, 2, 3]


def test_nothing_is_written_by_reading(store, corpus, provenance) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    store.chmod(0o555)
    try:
        TargetStore(store, provenance).read(corpus.keys)
    finally:
        store.chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == before
    shutil.rmtree(store)
