"""A quick rehearsal of a recipe that names a model, texts and a task of the hub."""

import json

import pytest

from potstill.errors import UserError
from potstill.recipe import load_recipe
from potstill.rehearsal import rehearse as module
from potstill.rehearsal.rehearse import rehearse

RECIPE = {
    "about": "Pythia without most of its layers, on WikiText",
    "teachers": {"pythia": {"model": "EleutherAI/pythia-160m", "revision": "step143000"}},
    "corpus": {
        "sources": [{"dataset": "Salesforce/wikitext", "config": "wikitext-2-raw-v1", "stream": True}],
        "train_tokens": 10_000_000,
        "sequence_length": 64,
        "held_out": {"sources": [{"data": "wikitext-2", "split": "test"}], "sequences": 4000},
    },
    "student": {"start": "prune_layers", "from": "pythia", "layers": 6},
    "distil": {"losses": [{"kind": "forward_kl"}], "training": {"per_device_train_batch_size": 64}},
    "control": None,
    "evaluate": {"minimal_pairs": {"blimp": {"data": "blimp"}}, "speed": False, "resamples": 100},
    "precision": "fp32",
}


@pytest.mark.slow
def test_a_recipe_of_the_hub_is_rehearsed_without_it(tmp_path, capfd):
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(RECIPE))
    result = rehearse(load_recipe(str(file)), tmp_path / "rehearsal")
    assert json.loads((tmp_path / "rehearsal" / "rehearsal.json").read_text()) == result
    assert result["passed"], result
    assert (result["stopped"], result["same_weights"], result["nothing_left"]) == ("distil/seed-0", True, True)
    assert result["models"]["teachers.pythia"]["parameters"] == 162_322_944
    assert result["cuts"]["student.layers"] == {"before": 6, "after": 2}
    assert {"teachers", "corpus", "distil/seed-0", "evaluate", "report"} <= result["seconds"].keys()
    assert [one["training"] for one in result["memory"]] == ["distil/seed-0"]
    printed = capfd.readouterr().out
    assert "teachers.pythia" in printed
    assert "its weights are as those of a training without a stop" in printed
    # The process has no cache but its own.
    assert (tmp_path / "rehearsal" / "home" / "hub").is_dir()


@pytest.mark.slow
def test_what_would_stop_the_run_stops_the_rehearsal_with_its_sentence(tmp_path):
    wrong = json.loads(json.dumps(RECIPE))
    wrong["corpus"]["sources"][0]["field"] = "txt"
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"there is no field 'txt'; the fields are 'text'"):
        rehearse(load_recipe(str(file)), tmp_path / "rehearsal")


def test_a_rehearsal_that_was_stopped_early_is_repeated(tmp_path, monkeypatch):
    def stopped(cut, folder):
        (folder / "half").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "make_stand_ins", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            rehearse(load_recipe("distilpythia"), tmp_path)


def test_a_folder_with_other_files_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"has files that no rehearsal made; name another `--folder`"):
        rehearse(load_recipe("distilpythia"), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
