import json

import pytest
import torch
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, AutoTokenizer

import minimal
import toy_questions
from potstill.data.collators import Collator
from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.stages import student as stage
from potstill.students.build import build
from potstill.students.importance import mean_loss
from tiny import VOCABULARY, gpt2, llama, padded, save_model, tokenizer, toy_recipe


def _made(folder, **student):
    run = Run(folder / "run")
    run_recipe(toy_recipe(folder, f"student={json.dumps(student)}"), run, until="student")
    return AutoModelForCausalLM.from_pretrained(run.path("student") / "start"), run.manifest("student")["summary"]


def test_the_start_is_a_plain_folder_with_its_tokenizer(run):
    folder = run.path("student") / "start"
    model, tokens = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.config.num_hidden_layers == 2
    assert tokens.get_vocab() == tokenizer().get_vocab()


def test_a_pruned_start_has_the_teacher_s_own_weights(run):
    start = AutoModelForCausalLM.from_pretrained(run.path("student") / "start").state_dict()
    teacher = llama(0).state_dict()
    kept = run.manifest("student")["summary"]["layers_kept"]
    assert kept == [0, 3]
    for name, weight in start.items():
        for new, old in reversed(list(enumerate(kept))):
            name = name.replace(f"layers.{new}.", f"layers.{old}.") if f"layers.{new}." in name else name
            if f"layers.{old}." in name:
                break
        assert torch.equal(weight, teacher[name]), name


def test_a_copy_is_its_teacher(tmp_path):
    start, summary = _made(tmp_path, **{"start": "copy", "from": "smollm2"})
    teacher = llama(0).state_dict()
    assert all(torch.equal(weight, teacher[name]) for name, weight in start.state_dict().items())
    assert all(weight.requires_grad for weight in start.parameters())
    assert summary["made"] == "4 layers of smollm2"


def test_an_adapter_is_tried_on_and_the_start_is_saved_without_it(tmp_path):
    adapter = {"r": 2, "target_modules": ["q_proj"]}
    start, summary = _made(tmp_path, **{"start": "copy", "from": "smollm2", "adapter": adapter})
    assert summary["parameters"] == llama(0).num_parameters()
    assert summary["trained_parameters"] == 4 * (2 * 32 + 32 * 2)
    assert set(start.state_dict()) == set(llama(0).state_dict())
    assert not list((tmp_path / "run").rglob("adapter*"))


def test_what_an_adapter_names_in_vain_is_told_before_anything_is_captured(tmp_path):
    student = {"start": "copy", "from": "smollm2", "adapter": {"target_modules": ["query"]}}
    recipe, run = toy_recipe(tmp_path, f"student={json.dumps(student)}"), Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"`student\.adapter\.target_modules`: LlamaForCausalLM has no module 'query'"):
        run_recipe(recipe, run)
    assert run.manifest("student") is None
    assert not run.path("capture").exists()


def test_an_adapter_that_peft_refuses_is_told_before_anything_is_done(tmp_path):
    student = {"start": "copy", "from": "smollm2", "adapter": {"rank": 2}}
    with pytest.raises(UserError, match=r"`student\.adapter\.rank` is no field of LoraConfig"):
        run_recipe(toy_recipe(tmp_path, f"student={json.dumps(student)}"), Run(tmp_path / "run"))
    assert not (tmp_path / "run" / "teachers").exists()


def test_a_start_from_scratch_is_the_same_each_time(tmp_path):
    shape = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    starts = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        starts.append(_made(folder, start="scratch", config=shape | heads)[0])
        torch.manual_seed(torch.seed())
    assert starts[0].config.vocab_size == VOCABULARY
    assert all(map(torch.equal, starts[0].state_dict().values(), starts[1].state_dict().values()))


def test_a_start_from_a_checkpoint_is_that_checkpoint(tmp_path):
    folder = save_model(gpt2(seed=5, layers=2), tmp_path / "small")
    start, summary = _made(tmp_path, start="checkpoint", model=str(folder))
    assert summary["layers"] == 2
    ids = torch.arange(2, 12)[None]
    assert torch.equal(start(ids).logits, gpt2(seed=5, layers=2)(ids).logits)


def test_a_checkpoint_of_another_tokenizer_is_refused(tmp_path):
    folder = save_model(padded(llama(layers=2), VOCABULARY + 20), tmp_path / "small")
    tokens = AutoTokenizer.from_pretrained(folder)
    tokens.add_tokens(["<another>"])
    tokens.save_pretrained(folder)
    with pytest.raises(UserError, match="have different tokenizers"):
        _made(tmp_path, start="checkpoint", model=str(folder))


def test_a_student_with_too_few_positions_is_refused(tmp_path):
    folder = save_model(llama(layers=2, max_position_embeddings=16), tmp_path / "small")
    with pytest.raises(UserError, match=r"`corpus.sequence_length` is 32, but the student has only 16 positions"):
        _made(tmp_path, start="checkpoint", model=str(folder))


IMPORTANT = {"start": "prune_layers", "from": "smollm2", "layers": 2, "rule": "importance", "importance_samples": 8}
NARROW = {"start": "prune_width", "from": "smollm2", "heads": 2, "intermediate_size": 48, "importance_samples": 8}


def test_what_a_student_is_before_training_is_in_the_summary_and_printed(tmp_path, capsys):
    start, summary = _made(tmp_path, **{"start": "prune_layers", "from": "smollm2", "layers": 2})
    before, sizes = summary["before"], summary["sizes"]
    assert sizes["the student"]["layers"] == 2
    assert sizes["smollm2"] == sizes["the student"] | {"layers": 4, "parameters": llama(0).num_parameters()}
    assert before["on"] == "training"
    assert list(before["teachers"]) == ["smollm2"]
    assert before["tokens"] == before["samples"] * 31, "packed samples of 32 tokens, of which the first follows nothing"
    printed = capsys.readouterr().out
    assert f"{start.num_parameters() / llama(0).num_parameters():.1%} of it" in printed
    assert f"{before['loss']:.4f}" in printed
    assert f"{before['teachers']['smollm2']:.4f}" in printed
    assert f"on {before['tokens']:,} tokens in {before['samples']:,} of the training samples" in printed


@pytest.mark.parametrize("override", ["corpus.validation=3", "corpus.train_tokens=320"])
def test_the_loss_before_training_is_the_models_own_on_samples_that_are_not_held_out(tmp_path, override):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, override), run, until="student")
    before = run.manifest("student")["summary"]["before"]
    start = AutoModelForCausalLM.from_pretrained(run.path("student") / "start").eval()
    part = "validation" if "validation" in override else "training"
    rows = list(load_from_disk(run.path("corpus") / part.removesuffix("ing")))
    assert (before["on"], before["samples"]) == (part, len(rows))
    assert before["loss"] == pytest.approx(mean_loss(start, [Collator(1)(rows)])[0], rel=1e-5)
    assert before["teachers"]["smollm2"] == pytest.approx(mean_loss(llama(0), [Collator(1)(rows)])[0], rel=1e-5)


@pytest.mark.parametrize("by", ["loss", "hidden"])
def test_layers_are_kept_by_what_they_are_worth_on_training_samples(tmp_path, by, capsys):
    _, summary = _made(tmp_path, **IMPORTANT, by=by)
    figures = summary["importance"]["layers"]
    assert summary["importance"]["by"] == by
    assert summary["measured_on"] == {"samples": 8}
    assert len(figures) == 4
    assert summary["layers_kept"] == sorted(sorted(range(4), key=lambda layer: -figures[layer])[:2])
    printed = capsys.readouterr().out
    assert all(f"{layer}: {figure:.4f}" in printed for layer, figure in enumerate(figures))
    assert f"layers kept: {summary['layers_kept'][0]}, {summary['layers_kept'][1]}" in printed


def test_what_importance_is_measured_on_is_nothing_that_the_start_is_measured_on(tmp_path, monkeypatch):
    chosen_by, measured_on = [], []

    def rows(batches):
        return [tuple(row) for batch in batches for row in batch["input_ids"].tolist()]

    def built(*arguments):
        chosen_by.extend(rows(arguments[-1]))
        return build(*arguments)

    def looked(model, batches, vocabulary):
        measured_on.extend(rows(batches))
        return mean_loss(model, batches, vocabulary)

    monkeypatch.setattr("potstill.stages.student.build", built)
    monkeypatch.setattr("potstill.stages.student.mean_loss", looked)
    _made(tmp_path, **IMPORTANT)
    train = {tuple(row) for row in load_from_disk(tmp_path / "run" / "corpus" / "train")["input_ids"]}
    assert len(chosen_by) == 8
    assert set(chosen_by) < train
    assert set(measured_on) < train
    assert not set(chosen_by) & set(measured_on)


def test_more_samples_than_there_are_is_refused(tmp_path):
    sentence = r"`student\.importance_samples` is 10,000, but the corpus gives only \d+ training"
    with pytest.raises(UserError, match=sentence):
        _made(tmp_path, **IMPORTANT | {"importance_samples": 10000})


def test_a_narrower_start_says_what_it_kept(tmp_path, capsys):
    start, summary = _made(tmp_path, **NARROW, layers=3, rule="ends")
    assert start.config.num_attention_heads == 2
    assert start.config.num_key_value_heads == 1
    assert start.config.intermediate_size == 48
    assert summary["layers_kept"] == [0, 2, 3]
    kept = json.loads((tmp_path / "run" / "student" / "kept.json").read_text())
    assert [len(each) for each in kept["neurons"]] == [48] * 3
    assert [len(each) for each in kept["heads"]] == [2] * 3
    assert kept["channels"] == list(range(32))
    teacher = llama(0).model.layers[2].mlp.up_proj.weight
    assert torch.equal(start.model.layers[1].mlp.up_proj.weight, teacher[kept["neurons"][1]])
    shares = summary["importance_kept"]
    assert 0.5 < shares["heads"] < 1
    assert 0.75 < shares["intermediate_size"] < 1
    assert shares["hidden_size"] == 1
    assert f"intermediate_size: {shares['intermediate_size']:.1%} of the teacher's" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"heads": 3}, r"`student\.heads` is 3, but .* in groups of 2; give a multiple of 2, or"),
        ({"heads": 8}, r"`student\.heads` is 8, but the teacher has 4; give less"),
        ({"layers": 9}, r"`student\.layers` is 9, but the teacher has 4 layers"),
        ({"layers": [0, 4]}, r"`student\.layers` names 4, but the teacher's layers are 0 to 3"),
    ],
)
def test_what_cannot_be_pruned_is_told(tmp_path, fields, sentence):
    with pytest.raises(UserError, match=sentence):
        _made(tmp_path, **NARROW | fields)


@pytest.mark.parametrize("student", [IMPORTANT | {"by": "hidden"}, NARROW | {"hidden_size": 24}])
def test_a_start_of_questions_is_measured_on_reference_solutions_without_any_teachers_answer(tmp_path, student):
    run = Run(tmp_path / "run")
    made = toy_questions.recipe(tmp_path, f"student={json.dumps(student | {'from': 't'})}", "generate={by: t}")
    run_recipe(made, run, until="student")
    summary = run.manifest("student")["summary"]
    assert not (run.folder / "generate").exists()
    assert not (run.folder / "prompts").exists()
    assert summary["measured_on"] == {"samples": 8}
    before = summary["before"]
    assert (before["on"], before["samples"]) == ("validation", 6)
    # What is supervised is the whole of each reference, and its end token; nothing of what is asked.
    answers = tokenizer()(list(load_from_disk(run.path("corpus") / "validation")["reference"])).input_ids
    assert before["tokens"] == sum(len(ids) + 1 for ids in answers)


PRUNED = {
    "student.layers=4": "keeps all of its teacher (layers 4)",
    "student.layers=[0, 1, 2, 3]": "keeps all of its teacher (layers 4)",
    "student.layers=9": "`student.layers` is 9, but the teacher has 4 layers",
    "student={start: prune_width, from: t, heads: 4}": "keeps all of its teacher (layers 4, heads 4)",
    "student={start: prune_width, from: t, intermediate_size: 64, layers: 4}": "keeps all of its teacher",
}


@pytest.mark.parametrize("change", PRUNED)
@pytest.mark.parametrize("trained_here", [False, True])
def test_a_pruning_that_prunes_nothing_is_refused_before_anything_is_spent(tmp_path, monkeypatch, change, trained_here):
    monkeypatch.chdir(tmp_path)
    save_model(llama(), tmp_path / "teacher")
    config = llama().config.to_diff_dict()
    shape = {name: config[name] for name in config if name.startswith(("num_", "intermediate", "hidden_size"))}
    given = [change.replace("from: t", "from: p")] if trained_here else [change]
    if trained_here:
        config = json.dumps({"model_type": "llama", **shape})
        given = [f"pretrain={{p: {{config: {config}}}}}", "student.from=p", *given]
    with pytest.raises(UserError) as told:
        stage.check(minimal.recipe(tmp_path, *given))
    assert PRUNED[change] in str(told.value)


@pytest.mark.parametrize("change", ["student.layers=3", "student={start: prune_width, from: t, heads: 4, layers: 3}"])
def test_a_pruning_that_prunes_something_is_taken(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    save_model(llama(), tmp_path / "teacher")
    stage.check(minimal.recipe(tmp_path, change))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("intermediate_size: 10000000000", "`student.config` needs at least"),
        ("num_hidden_layers: 1000000000", "`student.config.num_hidden_layers` is 1000000000"),
        ("hidden_size: '64'", "`student.config` makes no model: "),
        ("max_position_embeddings: 4", "`corpus.sequence_length` is 8, but the model of `student.config` has only 4"),
    ],
)
def test_a_configuration_that_cannot_be_trained_is_refused_before_anything_is_spent(tmp_path, fields, said):
    with pytest.raises(UserError) as told:
        stage.check(minimal.recipe(tmp_path, f"student={{start: scratch, config: {{model_type: llama, {fields}}}}}"))
    assert str(told.value).startswith(said)


def test_a_student_that_has_no_room_to_write_is_refused_before_teachers_run(tmp_path):
    recipe = toy_questions.recipe(tmp_path, "distil.on_policy={max_new_tokens: 256}")
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"`on_policy.max_new_tokens` is 256, and the student has only 256 positions"):
        run_recipe(recipe, run, until="distil")
    assert run.manifest("capture/base/own") is None
