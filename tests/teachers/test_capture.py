"""Running a teacher over samples into a store."""

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from potstill.data.collators import Collator
from potstill.errors import UserError
from potstill.targets import Provenance, StoreSpec, TargetStore, content_keys, make_codec
from potstill.targets.content_keys import batch_keys
from potstill.teachers.capture import SampleBatches, capture
from potstill.teachers.live import LiveTeacher
from tiny import VOCABULARY, llama
from toy_training import samples

PROVENANCE = Provenance("toy", "one", "tokenizer", "none")
CODEC = make_codec("top_k", vocabulary=VOCABULARY, k=VOCABULARY, bits=32)


def store_in(folder):
    return StoreSpec(folder, CODEC, PROVENANCE)


def test_a_store_says_what_the_teacher_says_of_each_sample(tmp_path):
    rows, teacher = samples(10), LiveTeacher(llama(0))
    tokens = capture(store_in(tmp_path / "store"), teacher, SampleBatches(rows, Collator(0), 4))
    store = TargetStore(tmp_path / "store", PROVENANCE)
    assert tokens == store.header.tokens
    for row in rows:
        batch = Collator(0)([row])
        target, found = teacher.target(batch), store.read(batch_keys(batch))
        expected = (target.hidden @ target.head.weight.T).log_softmax(-1)
        torch.testing.assert_close(found.log_probs, expected.gather(1, found.ids), rtol=0, atol=1e-4)


def test_samples_of_similar_length_are_read_together(tmp_path, monkeypatch):
    rows, teacher, read = samples(40), LiveTeacher(llama(0)), []
    plain = LiveTeacher.target
    monkeypatch.setattr(LiveTeacher, "target", lambda self, batch: read.append(batch) or plain(self, batch))
    batches = SampleBatches(rows, Collator(0), 4)
    capture(store_in(tmp_path / "store"), teacher, batches)
    lengths = [length for batch in read for length in batch["attention_mask"].sum(1).tolist()]
    assert lengths == sorted((len(row["input_ids"]) for row in rows), reverse=True)


def test_the_keys_of_samples_are_made_once_for_all_teachers(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("potstill.teachers.capture.contents", lambda *of: made.append(of) or content_keys.contents(*of))
    batches = SampleBatches(samples(10), Collator(0), 4)
    for seed in range(2):
        capture(store_in(tmp_path / str(seed)), LiveTeacher(llama(seed)), batches)
    assert len(made) == 1


@pytest.fixture(scope="module")
def many():
    return SampleBatches(samples(900, longest=4), Collator(0), 64)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, many):
    """The files of a store of four shards that one rank wrote without a stop."""
    folder = tmp_path_factory.mktemp("alone")
    capture(store_in(folder), LiveTeacher(llama(0)), many)
    assert len(list(folder.glob("*.records"))) == 4
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(("before", "after"), [(0, 2), (0, 3), (1, 3), (2, 1), (2, 3), (3, 2), (3, 6)])
def test_any_number_of_ranks_goes_on_where_others_stopped(tmp_path, monkeypatch, many, alone, before, after):
    plain, teacher, read = LiveTeacher.target, LiveTeacher(llama(0)), []

    def target(self, batch):
        read.append(len(batch["input_ids"]))
        if left and len(read) == left:
            raise KeyboardInterrupt
        return plain(self, batch)

    monkeypatch.setattr(LiveTeacher, "target", target)
    for rank in range(before):
        left = len(read) + 3
        # At its third batch.
        with pytest.raises(KeyboardInterrupt):
            capture(store_in(tmp_path), teacher, many, rank, before)
    left = 0
    for rank in reversed(range(after)):
        capture(store_in(tmp_path), teacher, many, rank, after)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == alone
    batches = sum(-(-shard // 64) for shard in (256, 256, 256, 132))
    assert len(read) - before == batches, "no batch is read twice"


def test_a_teacher_that_cannot_keep_documents_apart_is_refused_before_it_runs(tmp_path):
    torch.manual_seed(0)
    bloom = BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=1, n_head=2))
    rows = [{"input_ids": [1, 2, 3, 4], "documents": [2, 2]}]
    with pytest.raises(UserError, match=r"the teacher \(bloom\) reads across documents"):
        capture(store_in(tmp_path / "store"), LiveTeacher(bloom), SampleBatches(rows, Collator(0), 4))
    assert not (tmp_path / "store").exists()
