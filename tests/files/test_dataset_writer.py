"""A data set is written with all its rows or not at all."""

import pytest
from datasets import Dataset, Features, List, Value, load_from_disk

from potstill.files.dataset_writer import AT_ONCE, dataset_writer, save_dataset

FEATURES = Features({"input_ids": List(Value("int32"))})


def test_rows_are_there_in_their_order_when_the_block_ends(tmp_path):
    rows = [{"input_ids": list(range(n % 5))} for n in range(2 * AT_ONCE + 3)]
    with dataset_writer(tmp_path / "folder" / "train", FEATURES) as write:
        for row in rows:
            write(row)
        assert not (tmp_path / "folder" / "train").exists()
    found = load_from_disk(tmp_path / "folder" / "train")
    assert found.to_list() == rows
    assert found.features == FEATURES
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["train"]


def test_what_failed_leaves_what_was_there(tmp_path):
    with dataset_writer(tmp_path / "train", FEATURES) as write:
        write({"input_ids": [1]})
    with pytest.raises(ZeroDivisionError), dataset_writer(tmp_path / "train", FEATURES) as write:
        write({"input_ids": [1 // len(list(tmp_path.glob("nothing")))]})
    assert load_from_disk(tmp_path / "train").to_list() == [{"input_ids": [1]}]
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_no_rows_are_a_data_set_too(tmp_path):
    with dataset_writer(tmp_path / "train", FEATURES):
        pass
    assert load_from_disk(tmp_path / "train").to_list() == []


def test_the_same_rows_give_the_same_bytes_and_other_rows_another_fingerprint(tmp_path):
    def written(name, value):
        with dataset_writer(tmp_path / name, FEATURES) as write:
            write({"input_ids": [value]})
        save_dataset(Dataset.from_dict({"input_ids": [[value]]}, FEATURES), tmp_path / f"{name}-saved")
        folders = (tmp_path / name, tmp_path / f"{name}-saved")
        return [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]

    one, same, other = written("one", 1), written("same", 1), written("other", 2)
    assert one == same
    assert all(mine["state.json"] != theirs["state.json"] for mine, theirs in zip(one, other, strict=True))
    assert load_from_disk(tmp_path / "one")._fingerprint != load_from_disk(tmp_path / "other")._fingerprint
