"""What the columns of a sample say about its tokens: each is honoured, or refused in a sentence."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.data.sample_columns import TOKEN_COLUMNS, check_columns, read_plain_samples, read_sample
from potstill.errors import UserError

IDS = [5, 6, 7, 8, 9, 10]
X = IGNORE_INDEX


@pytest.mark.parametrize(
    ("columns", "labels"),
    [
        ({}, IDS),
        ({"labels": None, "completion_mask": None, "position_ids": None, "documents": None}, IDS),
        ({"completion_mask": [0, 0, 1, 1, 1, 1]}, [X, X, 7, 8, 9, 10]),
        ({"assistant_masks": [0, 1, 1, 0, 0, 1]}, [X, 6, 7, X, X, 10]),
        ({"completion_mask": [0, 0, 1, 1, 1, 1], "assistant_masks": [1, 1, 1, 0, 1, 0]}, [X, X, 7, X, 9, X]),
        ({"labels": [5, 6, 7, X, X, X], "completion_mask": [0, 0, 1, 1, 1, 1]}, [X, X, 7, X, X, X]),
        ({"completion_mask": [False, False, True, True, True, True]}, [X, X, 7, 8, 9, 10]),
        ({"completion_mask": [1] * 6, "attention_mask": [1, 1, 1, 1, 0, 0]}, [5, 6, 7, 8, X, X]),
    ],
)
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_token_is_learned_where_every_column_says_so(columns, labels, kind):
    sample = {name: values if values is None else kind(values) for name, values in columns.items()}
    assert read_sample({"input_ids": kind(IDS), **sample}).labels.tolist() == labels


@pytest.mark.parametrize(
    "sample",
    [
        {"input_ids": []},
        {"input_ids": np.array([], int), "labels": [], "completion_mask": [], "documents": []},
        {"input_ids": IDS, "attention_mask": [0] * 6},
    ],
    ids=["empty", "empty columns", "pads"],
)
def test_a_sample_without_tokens_teaches_nothing(sample):
    batch = Collator(1)([sample, {"input_ids": IDS}])
    assert batch["labels"].tolist() == [[X] * 6, IDS]
    assert batch["attention_mask"].sum(1).tolist() == [1, 6]
    assert Collator(1)([sample])["input_ids"].shape == (1, 1)
    check_columns([sample], TOKEN_COLUMNS)


@pytest.mark.parametrize(
    "columns",
    [
        {"documents": [2, 3, 1]},
        {"seq_lengths": [2, 3, 1]},
        {"position_ids": [0, 1, 0, 1, 2, 0]},
        {"seq_lengths": [2, 3, 1], "position_ids": [0, 1, 0, 1, 2, 0]},
    ],
    ids=lambda columns: " and ".join(columns),
)
def test_documents_are_named_in_any_of_three_ways(columns):
    expected = Collator(0)([{"input_ids": IDS, "documents": [2, 3, 1]}, {"input_ids": [1] * 8}])
    found = Collator(0)([{"input_ids": IDS, **columns}, {"input_ids": [1] * 8}])
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert found["labels"][0].tolist() == [5, 6, X, 8, 9, X, X, X]


@pytest.mark.parametrize("pads", [0, 7])
def test_the_positions_of_pads_do_not_matter(pads):
    sample = {"input_ids": IDS, "attention_mask": [0, 1, 1, 1, 1, 0], "position_ids": [pads, 0, 1, 0, 1, pads]}
    assert read_sample(sample).positions.tolist() == [0, 0, 1, 0, 1, 0]
    assert read_sample(sample).labels.tolist() == [X, 6, 7, X, 9, X]


@pytest.mark.parametrize(
    ("sample", "told"),
    [
        ({"text": "a"}, "has no `input_ids`, but only `text`"),
        ({"input_ids": None}, "no column that is not null"),
        ({"input_ids": [], "labels": [5]}, "`labels` .* 1 numbers, .* 0 tokens"),
        ({"input_ids": [IDS]}, "flat list"),
        ({"input_ids": [5.0, 6.0]}, "flat list"),
        ({"input_ids": "5 6 7"}, "flat list"),
        ({"input_ids": [5, X, 6]}, "id -100"),
        ({"input_ids": IDS, "labels": [5, 6]}, "`labels` .* 2 numbers, .* 6 tokens"),
        ({"input_ids": IDS, "completion_mask": [1] * 7}, "`completion_mask` .* 7 numbers, .* 6 tokens"),
        ({"input_ids": IDS, "assistant_masks": []}, "`assistant_masks` .* 0 numbers, .* 6 tokens"),
        ({"input_ids": IDS, "attention_mask": [1]}, "`attention_mask` .* 1 numbers, .* 6 tokens"),
        ({"input_ids": IDS, "completion_mask": [0, 0.5, 1, 1, 1, 1]}, "`completion_mask` .* not 0.5"),
        ({"input_ids": IDS, "assistant_masks": [0, None, 1, 1, 1, 1]}, "`assistant_masks` .* not None"),
        ({"input_ids": IDS, "labels": [-1, 6, 7, 8, 9, 10]}, "`labels` .* has -1"),
        ({"input_ids": IDS, "labels": [None] * 6}, "`labels` .* has None"),
        ({"input_ids": IDS, "position_ids": [2, 3, 4, 5, 6, 7]}, "`position_ids` .* has 2 where 0"),
        ({"input_ids": IDS, "position_ids": [0, 1, 2, 2, 3, 4]}, "`position_ids` .* has 2 where 3"),
        ({"input_ids": IDS, "position_ids": [0, 1]}, "`position_ids` .* 2 numbers"),
        ({"input_ids": IDS, "position_ids": [0, 1, None, 3, 4, 5]}, "`position_ids` .* whole numbers"),
        ({"input_ids": IDS, "position_ids": [0.0, 0.5, 1, 2, 3, 4]}, "`position_ids` .* whole numbers"),
        ({"input_ids": IDS, "documents": [2.5, 3.5]}, "`documents` .* flat list"),
        ({"input_ids": IDS, "seq_lengths": [[2, 3], [1]]}, "`seq_lengths` .* flat list"),
        ({"input_ids": IDS, "labels": [[5], [6, 7], 8, 9, 10, 11]}, "`labels` of a sample has"),
        ({"input_ids": IDS, "completion_mask": "110011"}, "`completion_mask` .* 1 numbers"),
        ({"input_ids": IDS, "completion_mask": list("110011")}, "`completion_mask` .* not '1'"),
        ({"input_ids": IDS, "seq_lengths": [2, 3]}, "`seq_lengths` .* counts 5 tokens, .* 6"),
        ({"input_ids": IDS, "documents": [-1, 7]}, "`documents`"),
        ({"input_ids": IDS, "documents": [6], "seq_lengths": [3, 3]}, "`documents` and `seq_lengths` .* disagree"),
    ],
)
def test_what_does_not_fit_is_refused(sample, told):
    with pytest.raises(UserError, match=told) as error:
        read_sample(sample)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ({"loss_mask": [1, 0, 1, 1, 1, 1]}, "`loss_mask` with a number for each token"),
        ({"advantages": np.ones(6)}, "`advantages` with a number for each token"),
        ({"weight": 0.5}, "`weight`, but every token has the same weight"),
        ({"token_type_ids": [0, 0, 0, 1, 1, 1]}, "`token_type_ids` other than 0"),
    ],
)
def test_columns_that_would_change_what_is_learned_are_refused(column, told):
    with pytest.raises(UserError, match=told):
        check_columns([{"input_ids": IDS, **column}], TOKEN_COLUMNS)


@pytest.mark.parametrize(
    "column",
    [
        {"id": "a"},
        {"length": 6},
        {"text": "abcdef"},
        {"weights": None},
        {"scores": [0.1, 0.2]},
        {"words": list("abcdef")},
        {"special_tokens_mask": [1, 0, 0, 0, 0, 0]},
        {"token_type_ids": [0] * 6},
        {"offset_mapping": [(n, n + 1) for n in range(6)]},
    ],
    ids=lambda column: next(iter(column)),
)
def test_other_columns_do_no_harm(column):
    check_columns([{"input_ids": IDS, **column}], TOKEN_COLUMNS)


def test_numbers_that_are_as_many_as_the_tokens_by_chance_do_no_harm():
    samples = [{"input_ids": IDS, "embedding": [0.0] * 6}, {"input_ids": IDS[:4], "embedding": [0.0] * 6}]
    check_columns(samples, TOKEN_COLUMNS)


COLUMNS = st.fixed_dictionaries(
    {"input_ids": st.lists(st.integers(-1, 9), max_size=5)},
    optional={
        "labels": st.lists(st.sampled_from([X, 1, 2, -3, None]), max_size=5),
        "attention_mask": st.lists(st.integers(0, 1), max_size=5),
        "completion_mask": st.lists(st.sampled_from([True, False, 2]), max_size=5),
        "documents": st.just([2, 1]),
    },
)


@given(st.lists(COLUMNS, min_size=1, max_size=4), st.booleans())
def test_samples_read_at_once_are_those_read_one_by_one(samples, fitted):
    if fitted:
        for sample in samples:
            length = len(sample["input_ids"])
            sample.update({name: (values * length)[:length] for name, values in sample.items()})
    plain = read_plain_samples(samples)
    if plain is None:
        return
    read = [read_sample(sample) for sample in samples]
    assert plain.lengths.tolist() == [len(one.ids) for one in read]
    for name in ("ids", "real", "labels"):
        assert getattr(plain, name).tolist() == np.concatenate([getattr(one, name) for one in read]).tolist()


@pytest.mark.parametrize("columns", [{}, {"labels": IDS}, {"completion_mask": [0, 1] * 3, "attention_mask": [1] * 6}])
def test_common_samples_are_read_at_once(columns):
    samples = [{"input_ids": IDS, **columns}, {"input_ids": IDS[:4], **{name: it[:4] for name, it in columns.items()}}]
    plain = read_plain_samples(samples)
    assert plain is not None
    assert not np.shares_memory(plain.ids, plain.labels)
