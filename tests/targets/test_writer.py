"""A finished store is the same for any number of workers, kills and resumes."""

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import processes
from potstill.errors import UserError
from potstill.losses.teacher_target import LogitsTarget
from potstill.targets import HiddenCodec, HybridCodec, Provenance, SampledCodec, StoreSpec, StoreWriter, TopKCodec
from potstill.targets.writer import shard_size

CODECS = [TopKCodec(61, 8), SampledCodec(61, 6), HybridCodec(61, 4, 4), HiddenCodec(61, 8)]
again = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def in_child(work: Callable[[], object]) -> int:
    """Run something in a separate process; returns its wait status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def killed_after(budget: int, work: Callable[[], object]) -> bool:
    """Run something in a process that is killed with -9 as soon as it has written ``budget`` bytes."""

    def limited() -> None:
        left, write = budget, os.write

        def short(file: int, data: memoryview) -> int:
            nonlocal left
            if len(data) > left:
                write(file, data[:left])
                os.kill(os.getpid(), signal.SIGKILL)
            left -= len(data)
            return write(file, data)

        os.write = short  # type: ignore[assignment]
        work()

    status = in_child(limited)
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.mode)
@again
@given(st.data())
def test_killed_at_any_byte_any_number_of_times_it_ends_the_same(
    tmp_path, corpus, write, contents, codec, data
) -> None:
    folder = tmp_path / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    expected = contents(write(tmp_path / "whole", corpus, codec))
    total = sum(map(len, expected.values()))
    commits = data.draw(st.sampled_from([0.0, 1e9]), label="seconds between commits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("potstill.targets.shard.COMMIT_SECONDS", commits)
        for budget in data.draw(st.lists(st.integers(0, total), max_size=4), label="bytes until killed"):
            workers = data.draw(st.integers(1, 3))
            worker = data.draw(st.integers(0, workers - 1))
            killed_after(budget, lambda at=(worker, workers): write(folder, corpus, codec, 4, *at))
    assert contents(write(folder, corpus, codec)) == expected


def test_the_kills_do_kill_and_resuming_does_resume(tmp_path, corpus, write, contents, monkeypatch) -> None:
    monkeypatch.setattr("potstill.targets.shard.COMMIT_SECONDS", 0.0)
    assert killed_after(5000, lambda: write(tmp_path / "store", corpus, HiddenCodec(61, 8)))
    before = contents(tmp_path / "store")
    asked = list[int]()
    real = type(corpus).target
    monkeypatch.setattr(type(corpus), "target", lambda self, at, codec: asked.extend(at) or real(self, at, codec))
    write(tmp_path / "store", corpus, HiddenCodec(61, 8))
    assert 0 < len(asked) < len(set(corpus.keys)), "the teacher runs only on missing samples"
    after = contents(tmp_path / "store")
    assert any(before[name] and after[name].startswith(before[name]) for name in before if name.endswith("index"))


def _bytes_of_records(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.records"))


@pytest.mark.slow
def test_killed_from_outside_while_it_writes(tmp_path, corpus, write, contents) -> None:
    folder = tmp_path / "store"
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "import conftest, potstill.targets.shard as shard; shard.COMMIT_SECONDS = 0.0\n"
        "conftest.write_store(pathlib.Path(sys.argv[2]), conftest.make_corpus())"
    )
    for size in (1, 2000, 8000):
        with processes.started("-c", code, Path(__file__).parent, folder) as (process, *_):
            while process.is_alive() and _bytes_of_records(folder) < size:
                process.join(0.001)
            assert process.exitcode in (None, 0)
    assert contents(write(folder, corpus)) == contents(write(tmp_path / "whole", corpus))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.mode)
def test_any_number_of_workers_write_the_same_store(tmp_path, corpus, write, contents, codec) -> None:
    alone = contents(write(tmp_path / "alone", corpus, codec))
    children = []
    for worker in range(2):
        child = os.fork()
        if child == 0:
            try:
                write(tmp_path / "two", corpus, codec, 4, worker, 2)
            finally:
                os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert contents(tmp_path / "two") == alone
    for worker in (4, 1, 0, 3, 2):
        write(tmp_path / "five", corpus, codec, 4, worker, 5)
    assert contents(tmp_path / "five") == alone


def test_batches_are_those_of_an_uninterrupted_run(tmp_path, corpus, write, monkeypatch) -> None:
    """A teacher's arithmetic may depend on its batch, so a resumed capture must use the same batches."""
    codec, keys = TopKCodec(61, 8), corpus.keys

    def batches() -> list[list[int]]:
        with StoreWriter(
            StoreSpec(tmp_path / "store", codec, provenance), keys, corpus.counts, samples_per_shard=16
        ) as writer:
            found = []
            for places in writer.pending(5):
                found.append(places.tolist())
                writer.write(corpus.target(places, codec))
                if len(found) == stop:
                    break
        return found

    provenance, stop = Provenance("a", "b", "c", "d"), 2
    first = batches()
    # A kill in the middle of a commit leaves one whole entry of the second batch, and the next one incomplete.
    index = tmp_path / "store" / "00000.index"
    os.truncate(index, 24 * 6 + 7)
    stop = 0
    assert batches()[0] == first[1]


def test_repeated_samples_are_written_once(store: Path, corpus) -> None:
    assert len(corpus.keys) == 43
    assert sum(path.stat().st_size for path in store.glob("*.index")) == 24 * 40


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path, corpus, write, contents) -> None:
    expected = contents(write(tmp_path / "whole", corpus))
    total, real, folder = sum(map(len, expected.values())), os.write, tmp_path / "full"
    for budget in range(0, total, 211):
        with pytest.MonkeyPatch.context() as patch:
            left = budget

            def full(file: int, data: memoryview) -> int:
                nonlocal left
                if left == 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                written = real(file, data[:left])
                left -= written
                return written

            patch.setattr(os, "write", full)
            with pytest.raises(UserError, match=r"disk is full: .* run the same command again"):
                write(folder, corpus)
        assert contents(write(folder, corpus)) == expected
        shutil.rmtree(folder)


def test_a_quota_of_the_system_is_a_full_disk(tmp_path, corpus, write, contents) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
        with pytest.raises(UserError, match="disk is full"):
            write(tmp_path / "store", corpus, HiddenCodec(61, 8))

    assert in_child(limited) == 0
    expected = contents(write(tmp_path / "whole", corpus, HiddenCodec(61, 8)))
    assert contents(write(tmp_path / "store", corpus, HiddenCodec(61, 8))) == expected


def test_too_little_room_is_said_before_the_teacher_runs(tmp_path, corpus, write, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(UserError, match="GB more and the disk has"):
        write(tmp_path / "store", corpus)


def test_a_second_writer_of_a_shard_is_refused(tmp_path, corpus, write, contents) -> None:
    codec, provenance = TopKCodec(61, 8), Provenance("toy", "revision 1", "tokenizer 1", "none")
    with StoreWriter(
        StoreSpec(tmp_path / "store", codec, provenance), corpus.keys, corpus.counts, samples_per_shard=16
    ) as first:
        places = next(pending := first.pending(4))
        with pytest.raises(UserError, match=r"00000\.records is being written by another process"):
            write(tmp_path / "store", corpus)
        first.write(corpus.target(places, codec))
        for places in pending:
            first.write(corpus.target(places, codec))
    assert contents(tmp_path / "store") == contents(write(tmp_path / "alone", corpus))


def test_a_killed_writer_leaves_no_lock(tmp_path, corpus, write) -> None:
    assert killed_after(2500, lambda: write(tmp_path / "store", corpus))
    write(tmp_path / "store", corpus)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"codec": TopKCodec(61, 9)}, "k 8, and is now asked for 9"),
        ({"codec": TopKCodec(61, 8, temperatures=(1.0, 2.0))}, r"temperatures \[1.0\].*\[1.0, 2.0\]"),
        ({"codec": SampledCodec(61, 8)}, "mode top_k.*sample"),
        ({"keys": slice(0, 30)}, "number of samples 40.*30"),
        ({"provenance": Provenance("other", "revision 2", "tokenizer 1", "none")}, "'revision 1'.*'revision 2'"),
        ({"provenance": Provenance("toy", "revision 1", "tokenizer 2", "none")}, "'tokenizer 1'.*'tokenizer 2'"),
    ],
)
def test_a_folder_begun_for_something_else_is_refused_with_both_names(store, corpus, change, says) -> None:
    kept = change.get("keys", slice(None))
    codec = change.get("codec", TopKCodec(61, 8))
    provenance = change.get("provenance", Provenance("toy", "revision 1", "tokenizer 1", "none"))
    with pytest.raises(UserError, match=says):
        StoreWriter(StoreSpec(store, codec, provenance), corpus.keys[kept], corpus.counts[kept], samples_per_shard=16)


def test_nothing_to_capture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to capture"):
        StoreWriter(StoreSpec(tmp_path, TopKCodec(61, 8), Provenance("a", "b", "c", "d")), [b"0" * 16], [0])


def test_batches_that_are_asked_for_ahead_make_the_same_store(tmp_path, corpus) -> None:
    def written(folder: Path, ahead: int) -> dict[str, bytes]:
        spec = StoreSpec(folder, TopKCodec(61, 8), Provenance("a", "b", "c", "d"))
        with StoreWriter(spec, corpus.keys, corpus.counts, samples_per_shard=7) as writer:
            waiting = []
            for places in writer.pending(4):
                waiting.append(places)
                if len(waiting) > ahead:
                    writer.write(_logits(corpus, waiting.pop(0)))
            for places in waiting:
                writer.write(_logits(corpus, places))
        return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.suffix != ".lock"}

    assert written(tmp_path / "ahead", 5) == written(tmp_path / "one", 0)


def _logits(corpus, places) -> LogitsTarget:
    rows = [torch.randn(int(corpus.counts[at]), 61, generator=torch.Generator().manual_seed(int(at))) for at in places]
    return LogitsTarget(torch.cat(rows))


def test_only_a_batch_that_was_asked_for_is_written(tmp_path, corpus) -> None:
    writer = StoreWriter(
        StoreSpec(tmp_path, TopKCodec(61, 8), Provenance("a", "b", "c", "d")), corpus.keys, corpus.counts
    )
    with pytest.raises(AssertionError, match="from pending"):
        writer.write(LogitsTarget(torch.zeros(1, 61)))


def test_targets_for_another_number_of_tokens_are_noticed(tmp_path, corpus) -> None:
    with StoreWriter(
        StoreSpec(tmp_path, TopKCodec(61, 8), Provenance("a", "b", "c", "d")), corpus.keys, corpus.counts
    ) as writer:
        next(pending := writer.pending(4))
        with pytest.raises(AssertionError, match="targets for"):
            writer.write(LogitsTarget(torch.zeros(1, 61)))
        pending.close()


def test_progress_counts_what_is_committed(tmp_path, corpus) -> None:
    with StoreWriter(
        StoreSpec(tmp_path, TopKCodec(61, 8), Provenance("a", "b", "c", "d")), corpus.keys, corpus.counts
    ) as writer:
        assert writer.samples_written() == 0
        for places in writer.pending(64):
            writer.write(corpus.target(places, writer.codec))
        assert writer.samples_written() == 40


@given(st.integers(1, 10**9), st.integers(0, 10**15))
def test_shards_are_neither_tiny_nor_too_many(samples: int, total: int) -> None:
    size = shard_size(samples, total)
    shards = np.ceil(samples / size)
    assert shards <= 512
    assert size >= 256
