"""What a batch gets of a store of spans, and which batches are refused."""

import pickle

import numpy as np
import pytest
import torch

from potstill.data.collators import Collator
from potstill.data.packing import TokenizedDocument, packed
from potstill.data.prompts.collator import teacher_batch
from potstill.data.stored_texts import hash_of
from potstill.data.text_of_batch import SAME_BYTE, SPANS
from potstill.data.text_runs import TEXT_RUNS, DocumentTokens, column_of
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.targets import Provenance, StoreSpec, TargetStore
from potstill.targets.codecs.spans import SpanCodec, SpanNumbers
from potstill.targets.span_collator import NUMBERS, SpanCollator
from potstill.targets.span_slices import SpanSlices, block_key
from potstill.targets.writer import StoreWriter
from tiny import documents, tokenizer
from tokenizer_zoo import folding, trained

OURS, THEIRS = TokenBytes(tokenizer(), "the student"), TokenBytes(trained(), "the teacher")
TEXTS = documents(6, seed=4)


def numbers_of(text):
    """Numbers that say which token of which document they are of."""
    (tokens,) = THEIRS.read([text])
    at = -torch.arange(1.0, len(tokens.ids) + 1) - 1000 * TEXTS.index(text)
    steps = torch.from_numpy(np.diff(tokens.ends, prepend=0))
    return SpanNumbers(at, at / 2, steps, torch.from_numpy(tokens.lost))


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    folder, codec = tmp_path_factory.mktemp("store"), SpanCodec(4000, 32, 128)
    numbers = [numbers_of(text) for text in TEXTS]
    spec = StoreSpec(folder, codec, Provenance("toy", "one", "tokenizer", "none"))
    with StoreWriter(spec, [block_key(hash_of(text), 0) for text in TEXTS], [len(one) for one in numbers]) as writer:
        for places in writer.pending(1):
            writer.write(numbers[int(places[0])])
    return SpanSlices(TargetStore(folder, None))


def samples(length=40, ours=OURS):
    read = zip(TEXTS, ours.read(TEXTS), strict=True)
    made = (TokenizedDocument([0, *one.ids.tolist()], (), DocumentTokens.of(text, one, 1)) for text, one in read)
    return [{"input_ids": one.input_ids, TEXT_RUNS: column_of(one.runs)} for one in packed(made, length)]


def batch_of(slices, rows, collate=None, ours=OURS):
    return SpanCollator(collate or Collator(1), ours, slices)(rows)


def test_a_span_has_the_same_text_for_both(slices):
    """Found again by the numbers, which say what they are of."""
    rows, checked = samples(), 0
    batch = batch_of(slices, rows)
    own, numbers = teacher_batch(batch), teacher_batch(batch)[NUMBERS]
    labels = [token for row in rows for token in row["input_ids"][1:]]
    assert len(own[SAME_BYTE]) == len(labels)
    for first, last, begin, end, opens, _ in own[SPANS].tolist():
        places = [round(-one) - 1 for one in numbers[begin:end, 0].tolist()]
        text, tokens = TEXTS[places[0] // 1000], THEIRS.read([TEXTS[places[0] // 1000]])[0]
        ids = tokens.ids[[one % 1000 for one in places]]
        theirs = THEIRS.joined(ids).removeprefix(b" ") if opens else THEIRS.joined(ids)
        assert theirs == OURS.joined(labels[first:last])
        assert theirs.decode() in text
        assert round(-numbers[end, 1].item() * 2) - 1 == places[-1]
        checked += 1
    assert checked > 60


def test_a_batch_is_what_its_rows_are(slices):
    rows = samples()
    together = teacher_batch(batch_of(slices, rows))
    apart = [teacher_batch(batch_of(slices, [row])) for row in rows]
    shift = np.cumsum([0, *(len(one[SAME_BYTE]) for one in apart)])
    moved = [one[SPANS][:, :2] + int(at) for one, at in zip(apart, shift, strict=False)]
    assert torch.equal(together[SPANS][:, :2], torch.cat(moved))
    assert torch.equal(together[NUMBERS], torch.cat([one[NUMBERS] for one in apart]))


def test_text_samples_are_the_beginnings_of_documents(slices):
    texts = [{"text": text} for text in TEXTS[:3]]
    ids = [{"input_ids": one.ids.tolist()} for one in OURS.read(TEXTS[:3])]
    batch = batch_of(slices, texts, lambda rows: Collator(1)(ids))
    assert len(teacher_batch(batch)[SPANS]) > 30


def test_a_token_that_gives_other_bytes_is_in_no_span(slices):
    """Of a student that folds case, words with other letters are left out, and nothing is moved by that."""
    ours = TokenBytes(folding(), "the student")
    rows = samples(60, ours)
    batch = batch_of(slices, rows, ours=ours)
    labels = [token for row in rows for token in row["input_ids"][1:]]
    spans, numbers = teacher_batch(batch)[SPANS].tolist(), teacher_batch(batch)[NUMBERS]
    assert spans
    for first, last, begin, end, opens, _ in spans:
        places = [round(-one) - 1 for one in numbers[begin:end, 0].tolist()]
        tokens = THEIRS.read([TEXTS[places[0] // 1000]])[0]
        theirs = THEIRS.joined(tokens.ids[[one % 1000 for one in places]])
        assert (theirs.removeprefix(b" ") if opens else theirs) == ours.joined(labels[first:last])


def test_a_loaders_worker_reads_the_same(slices):
    collate = SpanCollator(Collator(1), OURS, slices)
    again, found = pickle.loads(pickle.dumps(collate))(samples()), collate(samples())
    assert again.keys() == found.keys()
    assert all(torch.equal(again[name], found[name]) for name in found)


def test_a_row_without_text_has_no_spans(slices):
    row = {"input_ids": [0, 0, 0], TEXT_RUNS: b""}
    found = teacher_batch(batch_of(slices, [row]))
    assert len(found[SPANS]) == len(found[NUMBERS]) == 0


def test_moved_tokens_are_refused(slices):
    def left(rows):
        batch = Collator(1)(rows)
        return {name: value.flip(1) for name, value in batch.items()}

    with pytest.raises(UserError, match="`data_collator` moves or changes them"):
        batch_of(slices, samples()[:2], left)


def test_runs_of_other_tokens_are_refused(slices):
    row = samples()[0]
    with pytest.raises(UserError, match=r"`text_runs` of a sample say that \d+ tokens are \d+ bytes.*but they have"):
        batch_of(slices, [row | {"input_ids": [5] * 40}])


def test_another_document_is_refused(slices):
    other = documents(1, seed=99)
    ids = [{"input_ids": one.ids.tolist()} for one in OURS.read(other)]
    with pytest.raises(UserError, match="1 of 1 blocks of documents are not among the 6 captured"):
        batch_of(slices, [{"text": other[0]}], lambda rows: Collator(1)(ids))
