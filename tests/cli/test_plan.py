"""Plan: an estimate before anything is spent."""

import json
import os
import subprocess
import sys

import pytest

import minimal
from potstill.cli import main
from potstill.planning.duration import Scales
from potstill.rehearsal.hub import hub
from tiny import llama, save_model, toy_overrides


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run a command, and return what it printed."""

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["potstill", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert ended.value.code == code
        return capsys.readouterr()

    return run


@pytest.fixture
def toy(toy_folder, tmp_path):
    sets = [part for override in toy_overrides("quickstart", toy_folder) for part in ("--set", override)]
    return ["quickstart", "--run-dir", str(tmp_path / "run"), *sets]


def test_an_estimate_is_printed_and_nothing_is_captured(call, toy, tmp_path):
    last = call("capture", *toy, "--estimate").out.splitlines()[-1]
    assert last.startswith("smollm2: ")
    assert "bytes a token" in last
    assert not (tmp_path / "run" / "capture").exists()


def test_a_plan_is_printed_and_nothing_is_written(call, toy, tmp_path):
    page = call("plan", *toy).out
    assert "capture" in page
    assert "in all: " in page
    assert not (tmp_path / "run").exists()


def test_a_plan_for_another_machine_as_json(call, toy):
    told = json.loads(call("plan", *toy, "--machine", "a100-80gb", "--json").out)
    assert told["machine"]["kind"] == "cuda"
    assert told["steps"]["distil/seed-0"]["device_bytes"][0] > 0
    assert told["advice"] == []


def test_a_machine_nobody_described_is_a_note(call, toy):
    page = call("plan", *toy, "--machine", "nobody-s").out
    assert "note: nobody described a machine 'nobody-s'" in page
    assert "h100-80gb" in page
    assert "distil/seed-0" in page


def test_only_this_machine_can_be_calibrated(call, toy):
    said = call("plan", *toy, "--machine", "a100-80gb", "--calibrate", code=2).err
    assert said == "potstill: `--calibrate` tries steps on this machine; leave `--machine` out\n"


@pytest.mark.slow
def test_a_model_that_is_not_here_is_planned_from_its_configuration_on_the_hub(tmp_path):
    model = save_model(llama(), tmp_path / "model")
    command = [sys.executable, "-m", "potstill", "plan", str(minimal.write(tmp_path))]
    command += ["--set", "teachers.t.model=people/tiny", "--machine", "cpu-laptop", "--json"]
    with hub({"models/people/tiny": model}) as address:
        # huggingface_hub reads its variables when it is imported.
        own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(command, env=os.environ | own, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    parameters = sum(one.numel() for one in llama().parameters())
    assert told["models"]["t"]["total"] == parameters
    assert told["steps"]["distil/seed-0"]["host_bytes"][1] > 0
    assert told["fetched_bytes"] == [2 * parameters, 4 * parameters, 4 * parameters], "its configuration says float32"
    assert not list((tmp_path / "home").rglob("*.safetensors")), "no weights are fetched for a plan"


def test_layers_are_tried_for_this_machine_alone(call, toy, monkeypatch):
    tried = []
    monkeypatch.setattr("potstill.cli.plan.try_layers", lambda jobs, machine: tried.append(machine.name) or Scales())
    call("plan", *toy, "--machine", "cpu-laptop")
    assert not tried
    call("plan", *toy)
    assert len(tried) == 1
    assert tried[0].startswith("this machine")
