"""A cut recipe differs from the recipe in sizes only, and every difference is told."""

import json

import pytest

import minimal
from potstill.errors import UserError
from potstill.recipe import load_recipe, shipped_recipes
from potstill.rehearsal.cut import cut_recipe
from potstill.rehearsal.sources import model_files
from tiny import llama, save_corpus, save_model


def flat(value, key=""):
    """The values of nested sections by dotted key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not items and not isinstance(value, dict | list):
        return {key: value}
    found = {}
    for name, one in items:
        found |= flat(one, f"{key}.{name}".lstrip("."))
    return found or {key: value}


@pytest.mark.parametrize("name", shipped_recipes())
def test_only_what_is_told_differs(name):
    recipe = load_recipe(name)
    cut = cut_recipe(recipe)
    before, after = (flat(one.model_dump(mode="json", by_alias=True)) for one in (recipe, cut.recipe))
    different = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    # The facts are of the whole models.
    told = (*cut.cuts, *cut.models, "facts")
    assert different
    assert not [key for key in different if not any(key == one or key.startswith(f"{one}.") for one in told)]


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_setting_of_the_training_stays_but_its_length(name):
    recipe, cut = load_recipe(name), cut_recipe(load_recipe(name)).recipe
    lengths = {"max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "save_steps", "warmup_steps"}
    for before, after in [(recipe.distil, cut.distil)] + [
        (recipe.pretrain[one], cut.pretrain[one]) for one in recipe.pretrain
    ]:
        kept = {key: value for key, value in before.training.items() if key not in {*lengths, "logging_steps"}}
        assert kept.items() <= after.training.items()
    assert cut.distil.losses == recipe.distil.losses
    assert cut.capture == recipe.capture
    # Students that write have a test of their own.
    ours, theirs = (
        {name: one.model_copy(update={"on_policy": None}) for name, one in made.experiments.items()}
        for made in (cut, recipe)
    )
    assert ours == theirs
    assert cut.corpus.sequence_length == recipe.corpus.sequence_length
    assert [one.task for one in cut.evaluate.tasks] == [one.task for one in recipe.evaluate.tasks]


def given(tmp_path, **more):
    """A recipe with a model in a folder, pruned."""
    positions = {"num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 128}
    model = save_model(llama(layers=12, **positions), tmp_path / "teacher")
    settings = {
        "about": "A recipe of a user",
        "teachers": {"big": {"model": str(model)}},
        "corpus": {"sources": [{"path": str(save_corpus(tmp_path / "text.jsonl"))}], "sequence_length": 32},
        "student": {"start": "prune_layers", "from": "big", "layers": 6},
        "distil": {"losses": [{"kind": "forward_kl"}], "training": {"max_steps": 900, "report_to": "wandb"}},
        "seeds": [3, 4],
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(settings | more))
    return load_recipe(str(file))


def test_a_pruned_student_keeps_its_share_of_the_layers(tmp_path):
    cut = cut_recipe(given(tmp_path))
    assert cut.models["teachers.big"][1]["num_hidden_layers"] == 4
    assert cut.recipe.student.layers == 2
    assert cut.recipe.seeds == [3]
    assert cut.recipe.distil.training["report_to"] == "none"


@pytest.mark.parametrize("place", ["distil", "experiments.one"])
def test_a_student_writes_its_first_samples_within_the_few_steps(tmp_path, place):
    on_policy = {"share": 0.3, "from_step": 500, "max_new_tokens": 1000, "refresh_every": 4, "beginning": 8}
    losses = [{"kind": "forward_kl"}]
    distil = {"losses": losses, "training": {"max_steps": 900}}
    more = {"distil": {**distil, "on_policy": on_policy}}
    if place != "distil":
        more = {"distil": distil, "experiments": {"one": {"on_policy": on_policy}, "other": {}}}
    cut = cut_recipe(given(tmp_path, **more))
    name = None if place == "distil" else "one"
    found = cut.recipe.on_policy_of(name)
    assert (found.share, found.refresh_every) == (0.3, 4)
    assert found.from_step < cut.recipe.distil.training["max_steps"]
    assert found.max_new_tokens == 64
    # Models with random weights would always be refused.
    assert found.preflight == "warn"
    assert cut.cuts[f"{place}.on_policy.from_step"] == (500, found.from_step)


def test_what_is_small_already_stays(tmp_path):
    small = {"share": 1, "from_step": 1, "max_new_tokens": 8, "preflight": "off", "beginning": 8}
    cut = cut_recipe(given(tmp_path, distil={"losses": [{"kind": "forward_kl"}], "on_policy": small}))
    assert cut.content["distil"]["on_policy"] == small


def test_a_pruned_width_keeps_its_share(tmp_path):
    student = {"start": "prune_width", "from": "big", "heads": 4, "key_value_heads": 2, "hidden_size": 64}
    cut = cut_recipe(given(tmp_path, student=student))
    whole = cut.models["teachers.big"][1]
    assert cut.recipe.student.heads * 2 == whole["num_attention_heads"]
    assert cut.recipe.student.hidden_size * 2 == whole["hidden_size"]


def test_tasks_without_a_stand_in_are_left_out_and_told(tmp_path):
    cut = cut_recipe(given(tmp_path, evaluate={"tasks": ["piqa", "hellaswag"]}))
    assert [one.task for one in cut.recipe.evaluate.tasks] == ["piqa"]
    assert any("hellaswag" in note for note in cut.notes)


def test_a_quantisation_is_kept_where_its_package_is_and_told_where_it_is_not(monkeypatch):
    recipe = load_recipe("gsm8k")
    kept = cut_recipe(recipe).recipe.teachers["llama-405b"]
    monkeypatch.setattr("potstill.rehearsal.cut.find_spec", lambda name: None if name == "torchao" else object())
    cut = cut_recipe(recipe)
    assert cut.recipe.teachers["llama-405b"].quantization is None
    assert any("`teachers.llama-405b.quantization`, which needs torchao" in note for note in cut.notes)
    assert kept.quantization in (recipe.teachers["llama-405b"].quantization, None)


def test_few_questions_are_made():
    cut = cut_recipe(load_recipe("arithmetic"))
    assert [one.count for one in cut.recipe.corpus.questions] == [400]
    assert cut.cuts["corpus.questions.0.count"] == (10000, 400)


def test_conversations_and_the_answers_to_them_are_cut():
    cut = cut_recipe(load_recipe("chat"))
    assert cut.recipe.corpus.train < 20
    assert cut.recipe.corpus.held_out.count == cut.recipe.evaluate.documents == 12
    assert cut.recipe.answers.max_new_tokens == 64


def test_a_baseline_is_a_model_too(tmp_path):
    cut = cut_recipe(given(tmp_path, evaluate={"models": {"pythia": "EleutherAI/pythia-70m"}}))
    assert cut.models["evaluate.models.pythia"][0]["hidden_size"] == 512
    with pytest.raises(UserError, match=r"`evaluate\.models\.mine`: the configuration of a/b is not known"):
        cut_recipe(given(tmp_path, evaluate={"models": {"mine": "a/b"}}))


def test_experiments_are_all_rehearsed():
    assert list(cut_recipe(load_recipe("gsm8k")).recipe.experiments) == list(load_recipe("gsm8k").experiments)


@pytest.mark.parametrize(
    ("name", "gguf", "told"),
    [
        ("nobody/has-this", None, "the configuration of nobody/has-this is not known here; fetch it once"),
        ("nobody/has-this", "a.gguf", "a rehearsal makes no GGUF file"),
    ],
)
def test_a_model_that_nobody_knows_is_refused(name, gguf, told):
    with pytest.raises(UserError, match=told):
        model_files(name, "teachers.big.model", gguf)


def test_a_folder_that_is_no_language_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip", "text_config": {}}')
    with pytest.raises(UserError, match="is no plain language model"):
        model_files(str(tmp_path), "teachers.big.model")


def served(tmp_path, **teacher):
    model = str(save_model(llama(layers=12), tmp_path / "teacher"))
    given = {"server": "http://gpu-box:8000/v1", **teacher}
    return load_recipe(
        "quickstart",
        [
            f"teachers={json.dumps({'big': given})}",
            f"student={json.dumps({'start': 'checkpoint', 'model': model})}",
            "capture.k=20",
        ],
    ), model


def test_a_small_model_takes_the_place_of_a_server(tmp_path):
    recipe, model = served(tmp_path, api="vllm", model="name-at-the-server", tokenizer=str(tmp_path / "teacher"))
    cut = cut_recipe(recipe)
    assert cut.recipe.teachers["big"].model == model
    assert "teachers.big" in cut.models
    assert any("takes the place of the server" in note for note in cut.notes)


def test_a_server_that_has_not_said_its_model_cannot_be_rehearsed(tmp_path):
    recipe, _ = served(tmp_path, api="potstill")
    with pytest.raises(UserError, match=r"teachers.big.*potstill serve.*--set"):
        cut_recipe(recipe)


def test_a_store_of_another_run_is_not_taken(tmp_path):
    save_model(llama(), tmp_path / "teacher")
    save_corpus(tmp_path / "text.jsonl")
    given = {
        "teachers.t.model": str(tmp_path / "teacher"),
        "student": {"start": "scratch", "config": {"model_type": "llama"}},
        "tokenizer": {"vocab_size": 400},
        "distil.losses": [{"kind": "alm"}],
        "capture": {"keep": "spans", "store": "elsewhere/capture"},
    }
    cut = cut_recipe(minimal.recipe(tmp_path, *(f"{key}={json.dumps(value)}" for key, value in given.items())))
    assert cut.recipe.capture.keep == "spans"
    assert cut.recipe.capture.store is None
    assert any("`capture.store`" in note for note in cut.notes)
