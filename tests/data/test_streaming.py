"""Streams are read only as far as needed: `datasets`' own streams over local files in the hub's format."""

import json
import tracemalloc
from itertools import islice

import pytest
import zstandard

from potstill.data import sources
from potstill.data.documents import training_text
from potstill.data.splitting import split_documents
from potstill.data.stored_texts import TaughtText
from potstill.data.streaming import Stream
from potstill.errors import UserError
from potstill.recipe.corpus import Corpus
from tiny import documents


def save_pile(folder, shards, name="train"):
    """A data set like The Pile on the hub: compressed lines of text in several files."""
    folder.mkdir(exist_ok=True)
    for number, texts in enumerate(shards):
        lines = "".join(json.dumps({"text": text, "meta": {"pile_set_name": "toy"}}) + "\n" for text in texts)
        content = zstandard.ZstdCompressor().compress(lines.encode())
        (folder / f"{name}-{number:02}.jsonl.zst").write_bytes(content)
    return folder


def save_parquet(folder, shards):
    from datasets import Dataset

    folder.mkdir(exist_ok=True)
    for number, texts in enumerate(shards):
        Dataset.from_dict({"text": texts}).to_parquet(folder / f"train-{number:02}.parquet")
    return folder


FORMATS = {"jsonl.zst": save_pile, "parquet": save_parquet}


@pytest.fixture
def small_buffer(monkeypatch):
    monkeypatch.setattr(sources, "STREAM_BUFFER", 16)


def corpus(*folders, **fields):
    given = [{"dataset": str(folder), "stream": True} for folder in folders]
    return Corpus.model_validate({"sources": given, "sequence_length": 8, "train_tokens": 1000} | fields)


def read(section, count=None):
    """The first `count` training documents, the documents held out meanwhile, and the stream."""
    stream, held_out = Stream(section, {}), []
    found = islice(stream.training(lambda document: held_out.append(document.text)), count)
    return [document.text for document in found], held_out, stream


@pytest.mark.parametrize("kind", FORMATS)
def test_a_stream_has_every_document_once_and_is_split_by_hash(tmp_path, small_buffer, kind):
    texts = documents(80)
    folder = FORMATS[kind](tmp_path / "set", [texts[:30], [*texts[30:], *texts[:5]]])
    train, held_out, stream = read(corpus(folder, held_out=0.2))
    split = split_documents(map(TaughtText, texts), 0.2)
    assert sorted(train) == sorted(split.train)
    assert sorted(held_out) == sorted(split.held_out)
    assert (stream.distinct, stream.repeated) == (len(split.train), 5)
    assert stream.ran_out == {"corpus.sources.0": 85}


def test_its_order_is_drawn_and_always_the_same(tmp_path, small_buffer):
    texts = documents(80)
    section = corpus(save_pile(tmp_path / "set", [texts[:40], texts[40:]]))
    first, again = read(section)[0], read(section)[0]
    assert first == again
    kept = [text for text in texts if text in set(first)]
    assert first != kept
    # Files and documents are shuffled, so the first documents read are not the beginning of either file.
    assert first[:10] not in (kept[:10], [text for text in texts[40:] if text in set(first)][:10])


def test_it_is_read_no_further_than_it_must(tmp_path, small_buffer):
    folder = save_pile(tmp_path / "set", [documents(2000)])
    train, _, stream = read(corpus(folder), 20)
    assert len(train) == 20
    (tally,) = stream.tallies.values()
    assert tally.documents < 30
    assert stream.ran_out == {}


def test_several_are_read_in_turn_and_the_one_that_ran_out_is_known(tmp_path, small_buffer):
    few, many = documents(10, seed=1), [f"many {text}" for text in documents(60, seed=2)]
    folders = save_pile(tmp_path / "few", [few]), save_pile(tmp_path / "many", [many])
    train, _, stream = read(corpus(*folders, held_out=0.001), 40)
    assert [text in few for text in train[:20]] == [True, False] * 10
    assert not set(train[20:]) & set(few)
    assert stream.ran_out == {"corpus.sources.0": 10}


def test_held_out_text_of_its_own_is_never_trained_on(tmp_path, small_buffer):
    texts = documents(60)
    train, apart = save_pile(tmp_path / "train", [texts]), save_pile(tmp_path / "apart", [texts[50:]])
    held_out = {"sources": [{"dataset": str(apart), "stream": True}], "sequences": 1}
    stream = Stream(corpus(train, held_out=held_out), {})
    seen = [document.text for document in islice(stream.held_out_text(), 4)]
    read = [document.text for document in stream.training(lambda document: seen.append(document.text))]
    assert len(seen) == 4
    assert sorted(read) == sorted(set(texts) - set(seen))


def test_memory_is_flat_in_the_number_of_documents(tmp_path, small_buffer):
    folder = save_pile(tmp_path / "set", [documents(6000)])

    def peak(count):
        stream = Stream(corpus(folder), {})
        tracemalloc.start()
        for _ in islice(stream.training(lambda text: None), count):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)
    # Only one hash per document stays in memory: some hundred bytes, less than a document.
    assert peak(5000) - peak(500) < 4500 * 150 < sum(len(text) for text in documents(6000)[500:5000])


def test_a_damaged_stream_is_named(tmp_path):
    folder = save_pile(tmp_path / "set", [["One."]])
    (folder / "train-00.jsonl.zst").write_bytes(b"no archive")
    with pytest.raises(UserError) as told:
        read(corpus(folder))
    assert str(told.value).startswith(f"`corpus.sources.0.dataset`: data set {str(folder)!r} cannot be loaded")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"split": "train[:10%]"}, "cannot be loaded: "),
        ({"split": "valid"}, "cannot be loaded: "),
        ({"field": "body"}, "there is no field 'body'; the fields are 'text', 'meta'"),
    ],
)
def test_what_a_stream_does_not_have_is_told(tmp_path, asked, why):
    folder = save_pile(tmp_path / "set", [["One.", "Two."]])
    section = corpus(sources=[{"dataset": str(folder), "stream": True} | asked])
    with pytest.raises(UserError) as told:
        read(section)
    assert why in str(told.value)
    assert "\n" not in str(told.value)


def test_no_tokenizer_is_trained_on_a_stream(tmp_path):
    with pytest.raises(UserError, match="no tokenizer can be trained on a stream"):
        training_text(corpus(tmp_path))
