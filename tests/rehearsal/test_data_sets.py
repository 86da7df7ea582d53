"""Stand-ins of data sets are read as the published ones are: by configuration, split and column."""

import pytest

from potstill.files.named_data import all_named_data
from potstill.metrics.lm_eval.load import quiet
from potstill.rehearsal.data_sets import BLIMP, HUB_DATA, NAMED_FILES, TASKS, babylm_files


@pytest.mark.parametrize("name", HUB_DATA)
def test_its_card_names_its_configurations(name, tmp_path):
    from datasets import get_dataset_config_names, load_dataset

    data = HUB_DATA[name]
    data.save(tmp_path / "data", seed=0)
    configs = {config for config, _ in data.files.values()}
    assert set(get_dataset_config_names(str(tmp_path / "data"))) == configs
    config, split = next(iter(data.files.values()))
    rows = load_dataset(str(tmp_path / "data"), config, split=split, cache_dir=str(tmp_path / "cache"))
    files = [place for place in data.files.values() if place == (config, split)]
    assert len(rows) == data.rows * len(files)


def test_the_data_of_every_task_is_there_with_the_columns_that_lm_eval_reads():
    pytest.importorskip("lm_eval")
    import random

    from lm_eval.tasks import TaskManager

    with quiet():
        index = TaskManager().task_index
    assert set(TASKS) <= index.keys()
    import yaml

    class _Loader(yaml.SafeLoader):
        pass

    _Loader.add_constructor("!function", lambda loader, node: None)
    for task in ("piqa", "winogrande", "lambada_openai", "arc_easy", "sciq", "wsc"):
        settings = yaml.load(index[task].yaml_path.read_text(), _Loader)
        data = HUB_DATA[settings["dataset_path"]]
        configs = {config for config, _ in data.files.values()}
        assert (settings["dataset_name"] or "default") in configs
        splits = {split for config, split in data.files.values() if config == (settings["dataset_name"] or "default")}
        asked = {settings.get(name) for name in ("validation_split", "test_split")} - {None}
        assert asked <= splits
        row = data.row(random.Random(0), 0)
        wanted = [settings.get(name) for name in ("doc_to_text", "doc_to_target", "doc_to_choice")]
        columns = {name for name in row if any(name in str(text) for text in wanted)}
        assert columns or task in ("winogrande", "wsc")


def test_named_data_has_its_stand_ins():
    for name, data in all_named_data().items():
        if name == "chat-demos":  # an experiment's, which no shipped recipe reads
            continue
        if name in NAMED_FILES:
            files = {file for file, _ in NAMED_FILES[name]()}
            names = [split.local if data.hub is None else split.hub for split in data.splits.values()]
            assert files == {one for split in names for one in split}
        else:
            there = set(HUB_DATA[data.hub.repository].files)
            for split in data.splits.values():
                assert all("*" in one or one in there for one in split.hub)
    assert len(set(BLIMP)) == 67


def test_babylm_has_what_its_rules_look_for():
    texts = dict(babylm_files())
    assert b"= = = " in texts["train/wikipedia.train"]
    assert b"(Applause)\n...\n" in texts["train/qed.train"]
    assert b" ." in texts["dev/cbt.dev"]
    assert dict(babylm_files()) == texts
