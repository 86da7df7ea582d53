import torch
from hypothesis import given
from hypothesis import strategies as st

from potstill.data.collators import Collator
from potstill.data.labels import (
    IGNORE_INDEX,
    count_supervised,
    count_supervised_by_row,
    labels_of,
    supervised_mask,
)
from potstill.data.packing import Sample

LABELS = st.lists(st.sampled_from([IGNORE_INDEX, 0, 1, 2]), min_size=1, max_size=6)


@st.composite
def batches(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Rows of labels, some of them ignored, padded on the right, on the left, or all of one length."""
    rows = draw(st.lists(LABELS, min_size=1, max_size=4))
    side = draw(st.sampled_from(["right", "left", "none"]))
    if side == "none":
        return {"labels": torch.tensor([rows[0]] * len(rows))}
    longest = max(map(len, rows))

    def padded(row: list[int], fill: int) -> list[int]:
        pads = [fill] * (longest - len(row))
        return row + pads if side == "right" else pads + row

    return {
        "labels": torch.tensor([padded(row, IGNORE_INDEX) for row in rows]),
        "attention_mask": torch.tensor([padded([1] * len(row), 0) for row in rows]),
    }


@given(batches())
def test_mask_and_counts_agree(batch: dict[str, torch.Tensor]) -> None:
    labels, real = batch["labels"].tolist(), batch.get("attention_mask", torch.ones_like(batch["labels"])).tolist()
    length = len(labels[0])
    expected = [
        (row, time)
        for row in range(len(labels))
        for time in range(length - 1)
        if real[row][time] and labels[row][time + 1] != IGNORE_INDEX
    ]
    mask = supervised_mask(batch)
    assert [tuple(place) for place in mask.nonzero().tolist()] == expected
    assert count_supervised(batch) == len(expected)
    assert count_supervised_by_row(batch).tolist() == [
        sum(row == each for each, _ in expected) for row in range(len(labels))
    ]


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=4), st.booleans())
def test_a_sample_has_as_many_supervised_tokens_as_its_row_of_a_batch(sizes: list[list[int]], apart: bool) -> None:
    samples = [Sample(list(range(sum(each))), each) for each in sizes]
    columns = [{"input_ids": one.input_ids} | ({"documents": one.documents} if apart else {}) for one in samples]
    batch = Collator(0)(columns)
    assert count_supervised_by_row(batch).tolist() == [one.supervised(apart) for one in samples]


def test_a_label_that_only_a_pad_could_predict_is_not_learned() -> None:
    labels = torch.tensor([[IGNORE_INDEX, 5, 6, 7], [4, 5, 6, IGNORE_INDEX]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])
    learned = labels_of({"labels": labels, "attention_mask": mask})
    assert learned.tolist() == [[IGNORE_INDEX, IGNORE_INDEX, 6, 7], [4, 5, 6, IGNORE_INDEX]]
    assert labels_of({"labels": labels}) is labels
