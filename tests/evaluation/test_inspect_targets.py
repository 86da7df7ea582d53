"""Inspect targets: describes a store, finds damage, and compares the targets with their teacher."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import toy_questions
import toy_rows
from potstill.cli import main
from potstill.errors import UserError
from potstill.evaluation.inspect_targets import inspect, inspection_lines
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from tiny import VOCABULARY, _config, llama, toy_recipe


@pytest.fixture(scope="module")
def run(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = Run(tmp_path_factory.mktemp("stores") / "toy")
    run_recipe(toy_recipe(toy_folder, f"capture={{keep: top_k, k: {VOCABULARY}, bits: 32}}"), made, "capture")
    return made


def test_a_store_that_keeps_everything_is_true_to_its_teacher(run):
    found = inspect(run.path("capture") / "smollm2", samples=4)
    assert found["state"] == "finished"
    assert found["checksums"] == "all right"
    assert found["fidelity"]["tokens"] > 0
    assert found["fidelity"]["kl"] == pytest.approx(0, abs=1e-6)
    assert found["fidelity"]["gradient_cosine"] == pytest.approx(1, abs=1e-5)
    assert "fidelity.total_variation" in inspection_lines(found)


def test_a_store_that_keeps_little_is_less_true(toy_folder, tmp_path):
    small = Run(tmp_path / "small")
    run_recipe(toy_recipe(toy_folder, "capture={keep: top_k, k: 2}"), small, "capture")
    assert inspect(small.path("capture") / "smollm2", samples=4)["fidelity"]["kl"] > 0.01


def test_a_flipped_bit_is_found(run, tmp_path):
    damaged = shutil.copytree(run.path("capture") / "smollm2", tmp_path / "smollm2")
    records = max((file for file in damaged.iterdir() if file.is_file()), key=lambda file: file.stat().st_size)
    content = bytearray(records.read_bytes())
    content[len(content) // 2] ^= 1
    records.write_bytes(content)
    with pytest.raises(UserError, match=str(records.name)):
        inspect(damaged, samples=0)


def test_without_a_run_around_it_there_is_nothing_to_compare_with(run, tmp_path):
    alone = shutil.copytree(run.path("capture") / "smollm2", tmp_path / "smollm2")
    assert "fidelity" not in inspect(alone, samples=0)
    with pytest.raises(UserError, match="--fidelity 0"):
        inspect(alone, samples=2)


def test_the_verb_prints_what_was_found(run, monkeypatch, capsys):
    store = str(run.path("capture") / "smollm2")
    monkeypatch.setattr(sys, "argv", ["potstill", "targets", store, "--fidelity", "2", "--json"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["fidelity"]["tokens"] > 0


def test_a_store_of_questions_is_compared_on_the_samples_of_its_own_set(tmp_path):
    made = Run(tmp_path / "run")
    run_recipe(toy_questions.recipe(tmp_path), made, "capture")
    for of_set in ("base/own", "base/another_question"):
        found = inspect(made.path("capture") / of_set / "t", samples=3)
        assert found["fidelity"]["kl"] < 1e-4, "the toy keeps the whole distribution in 32 bits"


def test_a_store_of_a_teacher_of_some_rows_says_which_part_it_has(tmp_path):
    made = Run(tmp_path / "run")
    run_recipe(toy_rows.by_row(tmp_path, f"capture={{k: {VOCABULARY}, bits: 32}}"), made, "capture")
    for name, told in made.manifest("capture")["summary"].items():
        if name != "made":
            found = inspect(made.path("capture") / name, samples=3)
            assert found["teaches"] == f"{told['samples']:,} of {told['samples_in_all']:,} samples, as `when` says"
            assert found["samples"] == told["samples"] < told["samples_in_all"]
            assert found["fidelity"]["kl"] < 1e-4


def test_a_store_of_spans_is_compared_with_its_teacher(tmp_path):
    student = {"start": "scratch", "config": _config(llama(layers=2))}
    given = {"tokenizer": {"vocab_size": 400}, "student": student, "distil.losses": [{"kind": "alm"}]}
    overrides = ["capture={keep: spans}", *(f"{key}={json.dumps(value)}" for key, value in given.items())]
    made = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, *overrides), made, "capture")
    found = inspect(made.path("capture") / "smollm2", samples=6)
    assert found["codec"]["mode"] == "spans"
    assert found["bytes_per_token"] <= 8
    assert found["fidelity"]["tokens"] > 100
    assert 0 < found["fidelity"]["greatest"] < 1e-3
    assert "fidelity.log_mass" in inspection_lines(found)
