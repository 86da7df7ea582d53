"""Spans of whole documents: what the store says, in any blocks and rows, and after any stop."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from potstill.data.stored_texts import hash_of
from potstill.data.token_bytes import TokenBytes
from potstill.losses import span_scores
from potstill.losses.span_passes import numbers_of_rows
from potstill.targets import Provenance, StoreSpec, TargetStore
from potstill.targets.codecs.spans import SpanCodec
from potstill.targets.span_slices import SpanSlices
from potstill.teachers import capture_spans as module
from potstill.teachers.capture_spans import DocumentBlocks, capture_spans, span_codec
from potstill.teachers.live import LiveTeacher
from tiny import documents, llama
from tokenizer_zoo import texts, trained

THEIRS = TokenBytes(trained(), "the teacher")
AT_ONCE = 16
PROVENANCE = Provenance("toy", "one", "tokenizer", "none")


def teacher(**fields):
    return LiveTeacher(llama(seed=3, **{"vocab_size": 400, "max_position_embeddings": 512, **fields}))


def blocks(given, codec, theirs=THEIRS):
    return DocumentBlocks(given, theirs, codec)


def captured(folder, given, codec, live=None, theirs=THEIRS):
    capture_spans(StoreSpec(folder, codec, PROVENANCE), live or teacher(), blocks(given, codec, theirs), AT_ONCE)
    return TargetStore(folder, PROVENANCE)


def by_hand(live, before, ids):
    """The log-probability of each token of a document, and the log of the word mass after it."""
    with torch.no_grad():
        log_p = live.model(input_ids=torch.tensor([[*before, *ids]])).logits[0].double().log_softmax(-1)
    words = torch.zeros(400, dtype=torch.bool)
    words[: len(THEIRS.each)] = torch.from_numpy(THEIRS.begins_word)
    mass, first = log_p[:, words].logsumexp(-1), len(before)
    own = [log_p[first + at - 1, token].item() if first + at else 0.0 for at, token in enumerate(ids)]
    return torch.tensor(own), mass[first:]


def whole(store, text):
    (found,) = SpanSlices(store).read([(hash_of(text), 0, len(text.encode()))])
    return found, store.decode(torch.from_numpy(found.records))


@pytest.mark.parametrize("block", [60, 4000])
def test_the_numbers_are_those_of_the_whole_document(tmp_path, block):
    live, given = teacher(), documents(7, seed=2)
    codec = SpanCodec(block, context=400, longest=512)
    store = captured(tmp_path, given, codec, live)
    for text, tokens in zip(given, THEIRS.read(given), strict=True):
        found, numbers = whole(store, text)
        log_p, log_mass = by_hand(live, [trained().bos_token_id], tokens.ids.tolist())
        assert np.array_equal(found.ends, tokens.ends)
        assert np.array_equal(found.lost, tokens.lost)
        torch.testing.assert_close(numbers.log_p.double(), log_p.double(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(numbers.log_mass.double(), log_mass, rtol=1e-4, atol=1e-4)


def test_a_row_repeats_the_tokens_before_it(tmp_path):
    """Where a document is longer than a row, the teacher reads the context and the row."""
    live, (text,) = teacher(), documents(1, seed=8)
    codec = SpanCodec(4000, context=5, longest=20)
    _, numbers = whole(captured(tmp_path, [text], codec, live), text)
    (tokens,) = THEIRS.read([text])
    ids, begin, expected = tokens.ids.tolist(), 0, []
    while begin < len(ids):
        context = max(begin - 5, 0)
        end = min(context + 18, len(ids))
        log_p, log_mass = by_hand(live, [] if context else [trained().bos_token_id], ids[context:end])
        expected += [*zip(log_p[begin - context :].tolist(), log_mass[begin - context :].tolist(), strict=True)]
        begin = end
    stored = torch.stack([numbers.log_p, numbers.log_mass], 1)
    torch.testing.assert_close(stored, torch.tensor(expected).float(), rtol=1e-4, atol=1e-4)


def test_a_part_of_a_document_has_the_tokens_that_end_in_it(tmp_path):
    given = [text for text in texts(12, seed=3) if text] + documents(3)
    store, draw = captured(tmp_path, given, SpanCodec(50, 40, 128)), np.random.default_rng(1)
    slices = SpanSlices(store)
    for text, tokens in zip(given, THEIRS.read(given), strict=True):
        (all_of_it,) = slices.read([(hash_of(text), 0, len(text.encode()))])
        for _ in range(5):
            begin, end = sorted(draw.integers(0, len(text.encode()) + 1, 2).tolist())
            if begin == end:
                continue
            inside = (tokens.ends <= end) & ((tokens.ends > begin) | (begin == 0))
            (found,) = slices.read([(hash_of(text), begin, end)])
            assert np.array_equal(found.ends, tokens.ends[inside])
            assert np.array_equal(found.records, all_of_it.records[inside])


def test_without_a_token_before_a_document_its_first_token_has_no_number(tmp_path):
    bare = PreTrainedTokenizerFast(tokenizer_object=trained().backend_tokenizer)
    theirs, live, given = TokenBytes(bare, "bare"), teacher(), documents(2)
    codec = span_codec(live.config, bare)
    assert not codec.opens
    store = captured(tmp_path, given, codec, live, theirs)
    for text, tokens in zip(given, theirs.read(given), strict=True):
        _, numbers = whole(store, text)
        log_p, log_mass = by_hand(live, [], tokens.ids.tolist())
        torch.testing.assert_close(numbers.log_p.double(), log_p.double(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(numbers.log_mass.double(), log_mass, rtol=1e-4, atol=1e-4)


def test_a_teacher_reads_no_more_than_its_positions():
    codec = span_codec(llama(max_position_embeddings=64).config, trained())
    given = blocks(documents(20), codec)
    for place, tokens in enumerate(given.tokens(np.arange(len(given.blocks.keys)))):
        rows = given.rows(place, tokens)
        assert max(len(row.ids) for row in rows) <= 64
        assert sum(row.tokens for row in rows) == given.blocks.counts[place]


@pytest.fixture(scope="module")
def many():
    return documents(200, seed=6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, many):
    folder = tmp_path_factory.mktemp("alone")
    captured(folder, many, SpanCodec(120, 30, 128))
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 1), (1, 3)])
def test_a_stopped_capture_ends_in_the_same_bytes(tmp_path, monkeypatch, many, alone, before, after):
    plain, live, codec, read = LiveTeacher.target, teacher(), SpanCodec(120, 30, 128), []

    def target(self, batch):
        read.append(len(batch["input_ids"]))
        if left and len(read) == left:
            raise KeyboardInterrupt
        return plain(self, batch)

    monkeypatch.setattr(LiveTeacher, "target", target)
    store = StoreSpec(tmp_path, codec, PROVENANCE)
    for rank in range(before):
        left = len(read) + 3
        with pytest.raises(KeyboardInterrupt):
            capture_spans(store, live, blocks(many, codec), AT_ONCE, rank, before)
    left = 0
    for rank in reversed(range(after)):
        capture_spans(store, live, blocks(many, codec), AT_ONCE, rank, after)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == alone


def test_a_long_capture_fuses_its_passes(tmp_path, monkeypatch):
    weighed, asked, given = [], [], documents(3)
    monkeypatch.setattr(module, "worth_compiling", lambda *one: weighed.append(one[:2]) or True)
    monkeypatch.setattr(span_scores, "numbers_of_rows", lambda *one: asked.append(one[4]) or numbers_of_rows(*one[:4]))
    captured(tmp_path, given, SpanCodec(4000, 40, 128))
    assert weighed == [(sum(len(one.ids) for one in THEIRS.read(given)), len(THEIRS.each))]
    assert asked
    assert all(asked)
