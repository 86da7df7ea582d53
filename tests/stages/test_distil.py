import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import toy_questions
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from tiny import SEQUENCE_LENGTH, llama, padded, save_model, tokenizer, toy_recipe

STEPS, BATCH = 5, 4


def _log(run, step):
    return [json.loads(line) for line in (run.path(step) / "log.jsonl").read_text().splitlines()]


def test_the_student_is_a_plain_folder_with_its_tokenizer(run):
    folder = run.path("distil") / "student"
    model, tokens = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert tokens.get_vocab() == tokenizer().get_vocab()
    start = AutoModelForCausalLM.from_pretrained(run.path("student") / "start").state_dict()
    moved = [name for name, weight in model.state_dict().items() if not torch.equal(weight, start[name])]
    assert set(moved) == set(start), "every weight has learned"
    model.generate(torch.tensor([[5, 6]]), max_new_tokens=2, do_sample=False)


def test_the_student_is_the_first_seed_s(run):
    assert (run.path("distil") / "student").resolve() == (run.path("distil/seed-0") / "student").resolve()


def test_nothing_but_student_and_log_is_left(run):
    for seed in range(3):
        folder = run.path(f"distil/seed-{seed}")
        assert not list(folder.glob("checkpoint*"))
        assert not list(folder.rglob("training_args.bin")), "a pickle is no part of a plain folder"
        assert not list(folder.glob(".*"))


def test_each_step_is_logged_with_each_loss_apart(run):
    log = _log(run, "distil/seed-0")
    assert [entry["step"] for entry in log] == list(range(1, STEPS + 1))
    for entry in log:
        assert entry["loss"] == pytest.approx(0.5 * entry["forward_kl"] + 0.5 * entry["cross_entropy"], rel=1e-4)
    assert log[-1]["num_input_tokens_seen"] == STEPS * BATCH * SEQUENCE_LENGTH
    assert run.manifest("distil/seed-0")["summary"]["steps"] == STEPS


def test_seeds_see_samples_in_another_order(run):
    first = [_log(run, f"distil/seed-{seed}")[0]["cross_entropy"] for seed in range(3)]
    assert len(set(first)) == 3


def test_captured_or_not_the_student_is_nearly_the_same(tmp_path, run):
    online, exact = Run(tmp_path / "online"), Run(tmp_path / "exact")
    run_recipe(toy_recipe(tmp_path, "capture=null"), online, until="distil")
    run_recipe(toy_recipe(tmp_path, "capture.k=300", "capture.bits=32"), exact, until="distil")
    one, other = (_log(which, "distil/seed-0") for which in (online, exact))
    for ours, theirs in zip(one, other, strict=True):
        assert ours["forward_kl"] == pytest.approx(theirs["forward_kl"], rel=1e-3)


def test_a_log_may_be_rare(tmp_path):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "distil.training.logging_steps=100"), run)
    assert (run.path("report") / "index.html").is_file()


def test_a_run_without_checkpoints_is_possible(tmp_path):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "distil.training.save_strategy=no", "control=null"), run)
    assert (
        AutoModelForCausalLM.from_pretrained(run.path("distil") / "student").num_parameters() < llama().num_parameters()
    )


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"at step \d|after step \d"):
        run_recipe(toy_recipe(tmp_path, "distil.training.learning_rate=1e30", "distil.training.save_steps=1"), run)
    assert not (run.path("distil/seed-0") / "student").exists()
    assert run.manifest("distil/seed-0") is None
    for checkpoint in run.path("distil/seed-0").glob("checkpoints/checkpoint-*"):
        weights = AutoModelForCausalLM.from_pretrained(checkpoint).parameters()
        assert all(weight.isfinite().all() for weight in weights)


@pytest.mark.parametrize("merge", [False, True])
def test_an_adapter_is_trained_upon_the_start_compared_with_its_like_and_scored(tmp_path, merge):
    adapter = {"r": 2, "target_modules": ["q_proj", "v_proj"]}
    student = {"start": "prune_layers", "from": "smollm2", "layers": 2, "adapter": adapter, "merge": merge}
    given = [f"student={json.dumps(student)}", "distil.training.learning_rate=0.05"]
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, *given), run)
    start = AutoModelForCausalLM.from_pretrained(run.path("student") / "start").state_dict()
    for stage in ("distil", "control"):
        folder = run.path(f"{stage}/seed-0") / "student"
        assert (folder / "model.safetensors").is_file() == merge
        assert (folder / "adapter_model.safetensors").is_file() != merge
        assert run.manifest(f"{stage}/seed-0")["summary"]["trained_parameters"] == 2 * 2 * (32 + 32) + 2 * 2 * (32 + 16)
        if merge:
            found = AutoModelForCausalLM.from_pretrained(folder).state_dict()
            moved = {name for name, weight in found.items() if not torch.equal(weight, start[name])}
            assert moved == {f"model.layers.{n}.self_attn.{k}.weight" for n in (0, 1) for k in ("q_proj", "v_proj")}
    # The same adapter on the same first samples.
    first, control = (_log(run, f"{stage}/seed-0")[0]["cross_entropy"] for stage in ("distil", "control"))
    assert first == pytest.approx(control, rel=1e-6)
    rows = json.loads((run.path("evaluate") / "comparison.json").read_text())["rows"]
    value = {row["model"]: row["value"] for row in rows if row["metric"] == "perplexity"}
    assert len({value["start"], value["student"], value["control"]}) == 3, "adapters are scored, and not their start"


def test_layers_are_matched_beside_the_live_teacher(tmp_path):
    losses = [{"kind": "forward_kl"}, {"kind": "hidden_match", "weight": 0.5, "distance": "cosine"}]
    run, shape = Run(tmp_path / "run"), llama(layers=2, hidden_size=16).config.to_diff_dict()
    shape.pop("transformers_version")
    scratch = f"student={json.dumps({'start': 'scratch', 'config': shape})}"
    given = ["capture=null", "control=null", scratch, f"distil.losses={json.dumps(losses)}"]
    run_recipe(toy_recipe(tmp_path, *given), run, until="distil")
    for entry in _log(run, "distil/seed-0"):
        assert entry["loss"] == pytest.approx(entry["forward_kl"] + 0.5 * entry["hidden_match"], rel=1e-3)
    folder = run.path("distil") / "student"
    assert not list(folder.glob("projectors*"))
    start = AutoModelForCausalLM.from_pretrained(run.path("student") / "start")
    trained, before = (load_file(each / "model.safetensors") for each in (folder, run.path("student") / "start"))
    assert set(trained) == set(before)
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() == start.num_parameters()


@pytest.mark.parametrize("keep", [None, "top_k", "sample", "hybrid", "hidden"])
def test_a_checkpoint_padded_otherwise_learns_as_one_that_is_not(tmp_path, keep):
    small, wide = llama(5, layers=2), padded(llama(5, layers=2), 320)
    students = {"plain": save_model(small, tmp_path / "plain"), "wide": save_model(wide, tmp_path / "wide")}
    large, wider = llama(0), padded(llama(0), 304)
    teachers = {"plain": save_model(large, tmp_path / "large"), "wide": save_model(wider, tmp_path / "wider")}
    logs, rows = {}, {}
    for name, student in students.items():
        run = Run(tmp_path / f"run-{name}")
        given = [
            f"teachers={json.dumps({'t': {'model': str(teachers[name]), 'dtype': 'float32'}})}",
            f"student={json.dumps({'start': 'checkpoint', 'model': str(student)})}",
            f"capture={json.dumps(keep and {'keep': keep})}",
            # SGD: Adam divides by gradients that are nearly nothing, and makes a difference of what is only rounding.
            "distil.training.optim=sgd",
        ]
        run_recipe(toy_recipe(tmp_path, *given), run, until="evaluate")
        logs[name] = _log(run, "distil/seed-0") + _log(run, "control/seed-0")
        rows[name] = json.loads((run.path("evaluate") / "comparison.json").read_text())["rows"]
        model = AutoModelForCausalLM.from_pretrained(run.path("distil") / "student")
        assert model.config.vocab_size == (320 if name == "wide" else 300)
    for ours, theirs in zip(logs["wide"], logs["plain"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    for ours, theirs in zip(rows["wide"], rows["plain"], strict=True):
        assert (ours["model"], ours["metric"]) == (theirs["model"], theirs["metric"])
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-3, abs=1e-6)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run of questions whose first student writes a half of its samples; its teacher's targets were captured too. The
    pre-flight refused it, and then it was forced."""
    folder = tmp_path_factory.mktemp("written")
    experiments = "experiments={base: {}, corpus: {strategy: base, on_policy: {share: 0}}}"
    more = ["seeds=[0]", "distil.on_policy={share: 0.5, max_new_tokens: 8}", experiments]
    run, recipe = Run(folder / "run"), toy_questions.recipe(folder, *more)
    with pytest.raises(UserError) as refusal:
        run_recipe(recipe, run, until="distil")
    refused = read_json(run.path("distil/base/seed-0") / "preflight.json")
    run_recipe(recipe, run, until="distil", force=["distil"])
    without = toy_questions.recipe(folder, "seeds=[0]", "experiments={base: {}}")
    return SimpleNamespace(run=run, message=str(refusal.value), refused=refused, without=without)


def test_written_samples_are_refused_by_the_preflight_unless_forced(written):
    run = written.run
    assert "`--force distil`" in written.message
    outputs = run.manifest("distil/base/seed-0")["outputs"]
    assert {"rollouts.jsonl.gz", "preflight.json", "log.jsonl"} <= set(outputs)
    assert read_json(run.path("distil/base/seed-0") / "preflight.json") == written.refused
    log = _log(run, "distil/base/seed-0")
    assert all(entry["on_policy/tokens"] > 0 and entry["cross_entropy"] > 0 for entry in log)
    assert not any("on_policy/tokens" in entry for entry in _log(run, "distil/corpus/seed-0"))


def test_a_student_that_writes_nothing_is_that_of_a_recipe_without_on_policy(written, tmp_path):
    run, other = written.run, Run(tmp_path / "other")
    run_recipe(written.without, other, until="distil")
    one, same = (
        load_file(which.path(step) / "student" / "model.safetensors")
        for which, step in ((run, "distil/corpus/seed-0"), (other, "distil/base/seed-0"))
    )
    assert all(torch.equal(one[name], same[name]) for name in same)
