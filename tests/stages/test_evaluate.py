import json
import math
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from transformers import AutoModelForCausalLM

import toy_questions
from potstill.data.packing import windows
from potstill.errors import UserError
from potstill.metrics.held_out_text import document_windows
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.up_to_date import is_done
from potstill.recipe.step import Step
from tiny import SEQUENCE_LENGTH, llama, save_pairs, tokenizer, toy_recipe

DOCUMENTS = 8


def _comparison(run):
    return json.loads((run.path("evaluate") / "comparison.json").read_text())


def _held_out(run):
    return load_from_disk(run.path("corpus") / "held_out").select(range(DOCUMENTS))


@torch.no_grad()
def _by_hand(run, model, teacher):
    """Sums over each document, one window at a time, one token at a time."""
    sums = {name: [] for name in ("nll", "kl", "agreement", "tokens", "bytes")}
    for row in _held_out(run):
        totals = dict.fromkeys(sums, 0.0)
        totals["bytes"] = len(row["text"].encode())
        for ids in windows(row["input_ids"], SEQUENCE_LENGTH):
            ours, theirs = (one(torch.tensor([ids])).logits[0].double().log_softmax(-1) for one in (model, teacher))
            for place, token in enumerate(ids[1:]):
                totals["nll"] -= ours[place, token].item()
                totals["kl"] += (theirs[place].exp() * (theirs[place] - ours[place])).sum().item()
                totals["agreement"] += float(ours[place].argmax() == theirs[place].argmax())
                totals["tokens"] += 1
        for name, total in totals.items():
            sums[name].append(total)
    return {name: np.array(values) for name, values in sums.items()}


@cache
def _models():
    return {
        "teacher": "teacher",
        "start": "student/start",
        "student/seed-1": "distil/seed-1/student",
        "control/seed-2": "control/seed-2/student",
    }


@pytest.mark.parametrize("name", ["teacher", "start", "student/seed-1", "control/seed-2"])
def test_scores_are_what_a_hand_computes(run, name):
    where = _models()
    model = llama(0) if name == "teacher" else AutoModelForCausalLM.from_pretrained(run.folder / where[name]).eval()
    expected = _by_hand(run, model, llama(0))
    found = json.loads((run.path("evaluate") / "scores" / f"{name}.json").read_text())
    for what, values in expected.items():
        np.testing.assert_allclose(found[what], values, rtol=2e-5, atol=2e-4, err_msg=what)


def test_rows_are_ratios_of_those_sums(run):
    rows = {(row["model"], row["metric"]): row for row in _comparison(run)["rows"]}
    sums = _by_hand(run, llama(0), llama(0))
    nats, tokens = sums["nll"].sum(), sums["tokens"].sum()
    assert rows["teacher", "loss"]["value"] == pytest.approx(nats / tokens, rel=1e-5)
    assert rows["teacher", "perplexity"]["value"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert rows["teacher", "bits_per_byte"]["value"] == pytest.approx(
        nats / math.log(2) / sums["bytes"].sum(), rel=1e-5
    )
    assert ("teacher", "kl_to_teacher") not in rows, "a teacher is not compared with itself"
    for row in rows.values():
        assert row["n"] == DOCUMENTS
        assert row["low"] <= row["value"] <= row["high"]


def test_every_model_has_every_metric(run):
    rows = _comparison(run)["rows"]
    for model in ("start", "student", "control"):
        metrics = [row["metric"] for row in rows if row["model"] == model]
        assert metrics == ["loss", "perplexity", "bits_per_byte", "kl_to_teacher", "agreement"]


def test_seeds_give_a_spread(run):
    rows = {(row["model"], row["metric"]): row for row in _comparison(run)["rows"]}
    for model in ("student", "control"):
        seeds = rows[model, "loss"]["seeds"]
        assert len(seeds["values"]) == 3
        assert len(set(seeds["values"])) == 3
        assert np.mean(seeds["values"]) == pytest.approx(rows[model, "loss"]["value"], rel=1e-6)
        for seed, value in enumerate(seeds["values"]):
            scores = json.loads((run.path("evaluate") / "scores" / model / f"seed-{seed}.json").read_text())
            assert value == pytest.approx(sum(scores["nll"]) / sum(scores["tokens"]), rel=1e-9)
    assert rows["start", "loss"]["seeds"] is None


def test_the_student_is_paired_with_its_start_and_its_control(run):
    rows = {(row["model"], row["metric"]): row["value"] for row in _comparison(run)["rows"]}
    pairs = _comparison(run)["paired"]
    assert {(pair["a"], pair["b"]) for pair in pairs} == {("student", "start"), ("student", "control")}
    for pair in pairs:
        difference = rows["student", pair["metric"]] - rows[pair["b"], pair["metric"]]
        assert pair["difference"] == pytest.approx(difference, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("length", [0, 1, 2, 31, 32, 33, 63, 64, 200])
def test_windows_predict_each_token_once(length):
    document = list(range(1000, 1000 + length))
    cut = document_windows([[7, 8, 9], document], SEQUENCE_LENGTH)
    mine = [window.input_ids for window in cut if window.document == 1]
    predicted = [token for ids in mine for token in ids[1:]]
    assert sorted(predicted) == document[1:]
    assert all(1 < len(ids) <= SEQUENCE_LENGTH for ids in mine)


def test_without_a_control_there_is_none(tmp_path):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "control=null"), run)
    assert {row["model"] for row in _comparison(run)["rows"]} == {"teacher", "start", "student"}
    assert {pair["b"] for pair in _comparison(run)["paired"]} == {"start"}
    assert not run.path("control").exists()


def test_passages_show_every_token(tmp_path):
    # Long enough sequences for a passage to be shown whole.
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "corpus.sequence_length=128", "control=null"), run)
    passages = json.loads((run.path("evaluate") / "passages.json").read_text())
    assert passages
    texts = set(load_from_disk(run.path("corpus") / "held_out")["text"])
    for passage in passages:
        first, *rest = passage["tokens"]
        assert first == {"text": "<|endoftext|>"}
        assert (
            "".join(token["text"] for token in rest).replace("\ufffd", "")
            in {text.encode("ascii", "ignore").decode() for text in texts} | texts
        )
        for token in rest:
            assert token["kl"] > -1e-6
            assert len(token["teacher_top5"]) == len(token["student_top5"]) == 5
            assert 0 < sum(p for _, p in token["teacher_top5"]) <= 1.00001


def test_minimal_pairs_are_judged_for_every_model(tmp_path):
    run, pairs = Run(tmp_path / "run"), save_pairs(tmp_path / "pairs")
    settings = {"turned": {"path": str(pairs), "start": "eos", "prefix_space": False, "pairs": 5}}
    run_recipe(toy_recipe(tmp_path, f"evaluate.minimal_pairs={json.dumps(settings)}", "seeds=[0, 1]"), run)
    rows = {row["model"]: row for row in _comparison(run)["rows"] if row["metric"] == "turned"}
    assert rows.keys() == {"teacher", "start", "student", "control"}
    assert {row["n"] for row in rows.values()} == {10}, "five pairs of each of two subtasks"
    assert len(rows["student"]["seeds"]["values"]) == 2
    paired = {pair["b"]: pair for pair in _comparison(run)["paired"] if pair["metric"] == "turned"}
    assert list(paired) == ["start", "control"]
    for other, pair in paired.items():
        assert pair["difference"] == pytest.approx(rows["student"]["value"] - rows[other]["value"], abs=1e-9)
    whole = json.loads((run.path("evaluate") / "pairs" / "turned.json").read_text())
    assert set(whole["models"]["teacher"]["subtasks"]) == {"order", "more_order"}
    model, ids = llama(0), lambda text: [0, *tokenizer()(text).input_ids]
    won = []
    for name in ("order", "more_order"):
        lines = [json.loads(line) for line in (pairs / f"{name}.jsonl").read_text().splitlines()[:5]]
        sums = [[_log_probability(model, ids(row[f"sentence_{side}"])) for side in ("good", "bad")] for row in lines]
        won.append(np.mean([good > bad for good, bad in sums]))
    assert rows["teacher"]["value"] == pytest.approx(np.mean(won))
    page = (run.path("report") / "index.html").read_text()
    assert "turned" in page


@torch.no_grad()
def _log_probability(model, ids):
    logits = model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
    return logits.gather(1, torch.tensor(ids[1:])[:, None]).sum().item()


def test_pairs_that_changed_are_judged_again(tmp_path):
    run, pairs = Run(tmp_path / "run"), save_pairs(tmp_path / "pairs")
    recipe = toy_recipe(tmp_path, f"evaluate.minimal_pairs={json.dumps({'p': {'path': str(pairs)}})}")
    run_recipe(recipe, run, until="evaluate")
    assert is_done(recipe, run, Step("evaluate"))
    file = pairs / "order.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[:4]))
    assert not is_done(recipe, run, Step("evaluate"))


def test_several_students_are_compared_each_with_the_others_company(toy_folder, tmp_path):
    overrides = ["experiments={hot: {losses: [{kind: forward_kl, temperature: 4}]}, cold: {}}", "seeds=[0, 1]"]
    recipe, run = toy_recipe(toy_folder, *overrides), Run(tmp_path / "run")
    run_recipe(recipe, run, until="evaluate")
    found = _comparison(run)
    rows = {(row["model"], row["metric"]): row for row in found["rows"]}
    assert {model for model, _ in rows} == {"teacher", "start", "student hot", "student cold", "control"}
    assert rows["student hot", "loss"]["seeds"]["n"] == 2
    assert rows["student hot", "loss"]["value"] != rows["student cold", "loss"]["value"]
    pairs = {(pair["a"], pair["b"]) for pair in found["paired"]}
    assert pairs == {(f"student {name}", other) for name in ("hot", "cold") for other in ("start", "control")}
    assert (run.path("distil") / "hot" / "student").resolve() == run.path("distil/hot/seed-0").resolve() / "student"


def test_references_without_a_number_judge_answers_that_were_written_already(
    questions_run, questions_recipe, tmp_path, capsys
):
    shutil.copytree(questions_run.folder, tmp_path / "run")
    run, given = Run(tmp_path / "run"), questions_recipe
    answers = given.answers.model_copy(update={"number": False, "sentences": None})
    quick = given.evaluate.model_copy(update={"speed": False})
    capsys.readouterr()
    run_recipe(given.model_copy(update={"answers": answers, "evaluate": quick}), run, until="evaluate")
    began = [line for line in capsys.readouterr().out.splitlines() if line.endswith(": begins")]
    assert began == ["corpus: begins", "evaluate: begins"]
    before, after = ({(r["model"], r["metric"]): r for r in _comparison(one)["rows"]} for one in (questions_run, run))
    assert {metric for _, metric in after} == {
        *("loss", "stopped", "length_ratio", "rouge_l", "rouge_l_random", "repetition")
    }
    for model in {model for model, _ in after}:
        assert after[model, "loss"] == before[model, "loss"]
        assert after[model, "stopped"]["value"] == pytest.approx(1 - before[model, "hit_limit"]["value"])
    pairs, judged = ({(pair["a"], pair["b"]) for pair in _comparison(one)["paired"]} for one in (questions_run, run))
    assert pairs == judged


def test_questions_without_numbers_are_learned_where_none_is_asked_for(tmp_path):
    rows = [row | {"answer": row["answer"].partition("\n")[0]} for row in toy_questions.rows()]
    toy_questions.save(tmp_path, rows)
    with pytest.raises(UserError, match=r"an answer must end in '#### N'.*`answers.number: false`"):
        run_recipe(toy_questions.recipe(tmp_path), Run(tmp_path / "run"), until="corpus")
    made = toy_questions.recipe(tmp_path, "answers.number=false")
    run_recipe(made, Run(tmp_path / "run"), until="corpus")
