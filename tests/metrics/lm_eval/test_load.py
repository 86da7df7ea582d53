import json
import sys

import pytest

from potstill.errors import UserError
from potstill.metrics.lm_eval.load import load_task
from toy_tasks import CHOICE, GROUP, ITEMS, save_tasks


@pytest.fixture
def folder(tmp_path):
    return save_tasks(tmp_path / "tasks")


def _refused(name, folder=None, **how):
    with pytest.raises(UserError) as told:
        load_task(name, "evaluate.tasks.2", path=folder and str(folder), **how)
    sentence = str(told.value)
    assert sentence.startswith("`evaluate.tasks.2")
    assert "\n" not in sentence
    return sentence


def test_a_group_has_figures_of_its_own_and_a_single_task_too(folder):
    assert load_task(GROUP, "k", path=str(folder)).shown == [GROUP]
    assert load_task("toy_tag", "k", path=str(folder)).shown == ["toy_less", "toy_more"]
    one = load_task(CHOICE, "k", path=str(folder))
    assert one.shown == [CHOICE]
    assert len(one.loaded["tasks"][CHOICE].eval_docs) == ITEMS


def test_a_name_that_does_not_exist_is_told_with_near_ones():
    assert "there is no task 'piqua' in lm-eval; did you mean 'piqa'" in _refused("piqua")
    assert "'winogrande'" in _refused("winogrand")
    assert "`lm-eval ls tasks` lists them" in _refused("%%%%%%%%")


def test_near_names_in_the_folder_come_first(folder):
    assert "did you mean 'toy_choice'" in _refused("toy_choise", folder)
    assert f"in lm-eval or in {folder}" in _refused("toy_choise", folder)


def test_a_folder_that_is_not_there(tmp_path):
    assert f"there is no folder {str(tmp_path / 'nowhere')!r}" in _refused(CHOICE, tmp_path / "nowhere")


def test_a_task_file_that_is_no_yaml(folder):
    (folder / f"{CHOICE}.yaml").write_text("task: [toy_choice\noutput_type: x")
    assert f"task file {folder / CHOICE}.yaml is not valid: " in _refused(CHOICE, folder)


@pytest.mark.parametrize(
    "wrong",
    [
        {"output_type": "guessing"},
        {"metric_list": [{"metric": "wisdom"}]},
        {"metric_list": [{"aggregation": "mean"}]},
        {"test_split": "nowhere"},
        {"test_split": None},
        {"colour": "blue"},
    ],
)
def test_a_task_file_that_says_something_impossible(folder, wrong):
    file = folder / f"{CHOICE}.yaml"
    file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
    sentence = _refused(CHOICE, folder)
    assert "task 'toy_choice' is not valid (" in sentence
    assert sentence.endswith(f"correct its file, {file}")


def test_data_that_is_not_there(folder):
    (folder / f"{CHOICE}.jsonl").unlink()
    sentence = _refused(CHOICE, folder)
    assert "the data of task 'toy_choice' cannot be read (" in sentence
    assert f"{CHOICE}.yaml" in sentence


def test_data_on_the_hub_that_cannot_be_had(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sentence = _refused("piqa")
    assert "the data of task 'piqa' cannot be read (" in sentence
    assert "go online once" in sentence


def test_one_item_is_too_few(folder):
    file = folder / f"{CHOICE}.jsonl"
    file.write_text(file.read_text().splitlines()[0])
    assert "task 'toy_choice' has 1 item(s), and an interval needs at least 2" in _refused(CHOICE, folder)


def test_code_that_a_model_writes_is_not_run(folder):
    file = folder / f"{CHOICE}.yaml"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unsafe_code": True}))
    assert "runs the code that a model writes" in _refused(CHOICE, folder)


def test_without_lm_eval_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr("potstill.metrics.lm_eval.load.find_spec", lambda name: None)
    assert _refused("piqa").endswith("`pip install 'potstill[tasks]'` installs it")


def test_a_task_s_data_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    save_tasks(tmp_path / "tasks1", items=4)
    folder = save_tasks(tmp_path / "tasks[1]", items=6)
    assert len(load_task(CHOICE, "k", path=str(folder)).loaded["tasks"][CHOICE].eval_docs) == 6
