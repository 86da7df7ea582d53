"""What a teacher of another tokenizer reads of a batch, and where it stands at the student's bytes."""

import pytest
import torch

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX, supervised_mask
from potstill.data.packing import TokenizedDocument, packed
from potstill.data.prompts.collator import teacher_batch
from potstill.data.text_of_batch import TextCollator
from potstill.data.token_alignment import NOWHERE
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from tiny import documents, tokenizer
from tokenizer_zoo import stories, trained

TEXTS = [*documents(12), "naïve — 😀 of it", "a", "  two  spaces"]
BETWEEN = {"tiny": tokenizer, "trained": trained, "stories": stories}
PAIRS = [(one, other) for one in BETWEEN for other in BETWEEN if one != other]


def bytes_of(name):
    return TokenBytes(BETWEEN[name](), name)


def separator(name):
    tokens = BETWEEN[name]()
    return [tokens.eos_token_id if tokens.bos_token_id is None else tokens.bos_token_id]


def rows_of(name, length=40, apart=True):
    """Packed rows of a tokenizer's documents."""
    ids = [[*separator(name), *found.ids.tolist()] for found in bytes_of(name).read(TEXTS)]
    found = [
        {"input_ids": one.input_ids, "documents": one.documents} for one in packed(map(TokenizedDocument, ids), length)
    ]
    return found if apart else [{"input_ids": row["input_ids"]} for row in found]


def collated(ours, theirs, rows, positions=None):
    one, other = bytes_of(ours), bytes_of(theirs)
    return TextCollator(Collator(0), one, other, positions)(rows), one, other


def predicted(batch):
    """The flat places of the predicted tokens, in the order of the predictions."""
    return (supervised_mask(batch).flatten().nonzero()[:, 0] + 1).tolist()


def texts_of(one, batch, spans):
    """The bytes of the predicted tokens of each span, and those of the token after it."""
    ids = batch["input_ids"].flatten()[predicted(batch)].tolist()
    return [(one.joined(ids[begin:end]), one.joined(ids[end : end + 1])) for begin, end in spans.tolist()]


def our_texts(one, batch):
    return [text for text, _ in texts_of(one, batch, batch["teacher_spans"][:, :2])]


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_spans_are_the_same_text_for_both(ours, theirs, apart):
    batch, one, other = collated(ours, theirs, rows_of(ours, apart=apart))
    teacher = teacher_batch(batch)
    spans = teacher["spans"]
    assert len(spans) > 100
    found = zip(texts_of(one, batch, spans[:, :2]), texts_of(other, teacher, spans[:, 2:4]), spans[:, 4], strict=True)
    for (mine, after), (its, afterwards), opens in found:
        # A tokenizer may put a space before a text. Within it, both spans begin with their own.
        assert mine.lstrip(b" ") == its.lstrip(b" ") != b""
        assert opens or (mine == its and mine[:1] == b" ")
        # The prediction after a span is of the space after it.
        assert after[:1] == afterwards[:1] == b" "


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_the_teacher_reads_the_text_of_each_row(ours, theirs):
    rows = rows_of(ours)
    batch, one, other = collated(ours, theirs, rows)
    ids, real = batch["teacher_input_ids"], batch["teacher_attention_mask"].bool()
    for row, sample in enumerate(rows):
        mine, its = one.joined(sample["input_ids"]), other.joined(ids[row][real[row]].tolist())
        # A character that the row has cut is left out, and tokenizers put spaces of their own before documents.
        assert its.replace(b" ", b"") in mine.replace(b" ", b"")
        assert len(mine) - len(its) <= 3 + len(sample["documents"])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_pairs_stand_at_the_same_byte(ours, theirs):
    batch, one, other = collated(ours, theirs, rows_of(ours))
    teacher, same = teacher_batch(batch), batch["teacher_same_byte"]
    assert len(same) == supervised_mask(batch).sum()
    paired = [(at, int(it)) for at, it in enumerate(same) if it != NOWHERE]
    assert len(paired) > 200
    place, its = predicted(batch), predicted(teacher)
    width, longest = batch["input_ids"].shape[1], teacher["input_ids"].shape[1]
    for at, number in paired:
        row, before = divmod(place[at] - 1, width)
        other_row, other_before = divmod(its[number] - 1, longest)
        assert row == other_row
        mine = one.joined(batch["input_ids"][row, : before + 1].tolist())
        theirs_text = other.joined(teacher["input_ids"][row, : other_before + 1].tolist())
        assert theirs_text.replace(b" ", b"") in mine.replace(b" ", b"")
        assert len(mine.replace(b" ", b"")) - len(theirs_text.replace(b" ", b"")) <= 3


def test_packed_rows_give_the_spans_of_their_documents_alone():
    rows = rows_of("tiny", length=60)
    packed_batch, one, _ = collated("tiny", "trained", rows)
    pieces = []
    for row in rows:
        ids = iter(row["input_ids"])
        pieces += [{"input_ids": [next(ids) for _ in range(size)]} for size in row["documents"]]
    alone = [collated("tiny", "trained", [piece])[0] for piece in pieces]
    assert our_texts(one, packed_batch) == [text for batch in alone for text in our_texts(one, batch)]


def test_documents_apart_begin_anew_for_the_teacher_too():
    batch, *_ = collated("tiny", "trained", rows_of("tiny", length=90))
    begins = (batch["position_ids"] == 0).sum(1)
    assert begins.max() > 1
    assert torch.equal(
        (batch["teacher_position_ids"] * batch["teacher_attention_mask"] == 0).sum(1) >= begins, begins > 0
    )
    assert "teacher_position_ids" not in collated("tiny", "trained", rows_of("tiny", apart=False))[0]


def test_padding_and_the_order_of_samples_change_no_span():
    rows = [{"input_ids": [*separator("tiny"), *found.ids.tolist()]} for found in bytes_of("tiny").read(TEXTS)]
    together, one, _ = collated("tiny", "stories", rows)
    found = our_texts(one, together)
    backwards, *_ = collated("tiny", "stories", rows[::-1])
    assert sorted(found) == sorted(our_texts(one, backwards))
    assert len(found) > 300


def test_text_that_is_not_learned_is_in_no_span():
    (found,) = bytes_of("tiny").read(["the river bank crosses old town of stone"])
    ids = [*separator("tiny"), *found.ids.tolist()]
    half = len(ids) // 2
    labels = [IGNORE_INDEX] * half + ids[half:]
    batch, one, _ = collated("tiny", "trained", [{"input_ids": ids, "labels": labels}])
    whole, *_ = collated("tiny", "trained", [{"input_ids": ids}])
    assert 0 < len(batch["teacher_spans"]) < len(whole["teacher_spans"])
    assert all(text in one.joined(ids[half:]) for text in our_texts(one, batch))


def test_text_that_the_teacher_reads_otherwise_is_in_no_span():
    (found,) = bytes_of("tiny").read(["the river ½ bank crosses old town"])
    batch, one, _ = collated("tiny", "trained", [{"input_ids": [*separator("tiny"), *found.ids.tolist()]}])
    assert our_texts(one, batch) == [b"the", b" river", b" bank", b" crosses", b" old"]


def test_a_row_without_text_has_no_spans():
    batch, *_ = collated("tiny", "trained", [{"input_ids": separator("tiny") * 3}, rows_of("tiny")[0]])
    assert batch["teacher_attention_mask"][0].sum() == 1
    assert len(batch["teacher_spans"]) > 0


def test_a_batch_without_text_has_no_spans():
    batch, *_ = collated("tiny", "trained", [{"input_ids": separator("tiny") * 3}])
    assert batch["teacher_spans"].shape == (0, 6)


@pytest.mark.parametrize("name", ["stories"])
def test_a_model_that_always_reads_a_token_before_a_text_reads_it_before_each_row(name):
    other = bytes_of(name)
    tokens = other.tokenizer
    begins = tokens("a").input_ids[0] == tokens.bos_token_id
    batch, *_ = collated("tiny", name, rows_of("tiny"))
    assert (batch["teacher_input_ids"][:, 0] == tokens.bos_token_id).all() or not begins


def test_rows_that_are_too_long_for_the_teacher_are_refused():
    with pytest.raises(UserError, match=r"has \d+ tokens of stories, but that reads only 20; make the samples shorter"):
        collated("tiny", "stories", rows_of("tiny"), positions=20)


def test_a_batch_has_a_multiple_of_16_places_but_no_more_than_the_teacher_reads():
    for rows in (4, 3, 1):
        batch, *_ = collated("tiny", "stories", rows_of("tiny")[:rows])
        longest = int(batch["teacher_attention_mask"].sum(1).max())
        assert batch["teacher_input_ids"].numel() % 16 == 0
        assert longest <= batch["teacher_input_ids"].shape[1] < longest + 16
    # Positions beyond are unknown to a model that learns them.
    batch, *_ = collated("tiny", "stories", rows_of("tiny")[:1], positions=longest)
    assert batch["teacher_input_ids"].shape[1] == longest


def test_samples_with_tokens_of_the_teachers_own_are_refused():
    def collate(samples):
        batch = Collator(0)(samples)
        return batch | {"teacher_input_ids": batch["input_ids"]}

    with pytest.raises(UserError, match="samples have tokens of their own for the teacher"):
        TextCollator(collate, bytes_of("tiny"), bytes_of("trained"))(rows_of("tiny"))


def test_a_cut_text_keeps_the_spans_before_the_cut():
    ids = [[*separator("tiny"), *found.ids.tolist()] for found in bytes_of("tiny").read(documents(4, seed=9))]
    rows, (ours, theirs) = [{"input_ids": one} for one in ids], (bytes_of("tiny"), bytes_of("trained"))
    whole = TextCollator(Collator(0), ours, theirs)(rows)
    cut = TextCollator(Collator(0), ours, theirs, positions=20, cut=True)(rows)
    assert cut["teacher_input_ids"].shape[1] == 20
    kept = {tuple(row[:2]) for row in cut["teacher_spans"].tolist()}
    assert 0 < len(kept) < len(whole["teacher_spans"])
    assert kept < {tuple(row[:2]) for row in whole["teacher_spans"].tolist()}
