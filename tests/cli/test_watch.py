"""`potstill watch`: the page and its news while a run is at work, after a kill, and after its end."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

import minimal
import processes
from potstill.cli.watch import make_server, watch
from potstill.errors import UserError
from potstill.pipeline import live
from potstill.pipeline.run_folder import Run
from tiny import toy_overrides

PAUSE_ITSELF = """
import os, runpy, signal, sys
from pathlib import Path
from potstill.training.trainer import DistilTrainer
plain = DistilTrainer.training_step
paused = sys.argv.pop(1)
def pausing(self, *args):
    if "control" in Path(self.args.output_dir).parts and self.state.global_step == 3:
        Path(paused).touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return plain(self, *args)
DistilTrainer.training_step = pausing
runpy.run_module("potstill", run_name="__main__")
"""
"""A run that pauses in the middle of a training, until somebody kills it or lets it go on."""


@pytest.fixture
def run(tmp_path):
    recipe, made = minimal.recipe(tmp_path), Run(tmp_path / "run")
    with made.open(recipe.model_dump(mode="json", by_alias=True)):
        pass
    return made


@pytest.fixture
def served(run) -> Iterator[int]:
    """The port of the page of a run."""
    yield from serve(run.folder)


def serve(folder):
    with make_server(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def get(port, path, host=None):
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body, answer.headers


def test_the_page_its_news_and_the_report_are_served(run, served):
    status, body, headers = get(served, "/")
    assert (status, headers.get_content_type()) == (200, "text/html")
    assert "state.json" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    status, body, headers = get(served, "/state.json")
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert json.loads(body)["state"] == "waiting"
    assert get(served, "/report")[0] == 404
    run.path("report").mkdir()
    (run.path("report") / "index.html").write_text("<p>gain</p>")
    assert get(served, "/report")[:2] == (200, "<p>gain</p>")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "localhost.evil.example", ""])
def test_a_page_of_another_origin_reads_nothing(served, host):
    for path in ("/", "/state.json", "/report"):
        assert get(served, path, host)[0] == 403


def test_localhost_is_this_machine(served):
    assert get(served, "/state.json", f"localhost:{served}")[0] == 200


@pytest.mark.parametrize("path", ["/recipe.json", "/../recipe.json", "/report/index.html", "/report/../recipe.json"])
def test_no_other_file_is_served(served, path):
    assert get(served, path)[0] == 404


def test_a_run_that_cannot_be_read_is_told_in_a_sentence(run, served):
    (run.folder / "recipe.json").write_text("{")
    status, body, _ = get(served, "/state.json")
    assert status == 503
    assert "recipe.json" in json.loads(body)["error"]


def test_a_port_that_is_taken_is_named(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} cannot be used \(.*\); choose another `--port`"):
            watch(run.folder, port, terminal=False)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    for terminal in (True, False):
        with pytest.raises(UserError, match="no run folder"):
            watch(tmp_path / "nothing", 0, terminal=terminal)


def test_it_never_imports_torch():
    code = "import sys, potstill.cli.watch; print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.slow
def test_a_run_is_watched_at_work_after_a_kill_and_after_it_went_on(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    more = ["distil.training.max_steps=6", "distil.training.save_steps=2", "distil.snapshots.every=3"]
    sets = [word for one in [*toy_overrides("quickstart", tmp_path), *more] for word in ("--set", one)]
    words = ["run", "quickstart", "--run-dir", str(folder), *sets]
    paused = tmp_path / "paused"
    with processes.started("-c", PAUSE_ITSELF, paused, *words) as (process, *_):
        while not paused.exists():
            assert process.is_alive(), "the run ended before it paused"
            process.join(0.02)
        pages = serve(folder)
        port = next(pages)
        at_work = json.loads(get(port, "/state.json")[1])
        assert at_work["state"] == "running"
        by_name = {step["name"]: step for step in at_work["steps"]}
        assert by_name["distil/seed-0"]["state"] == "done"
        assert by_name["control/seed-0"]["state"] == "running"
        assert (by_name["control/seed-0"]["done"], by_name["control/seed-0"]["of"]) == (3, 6)
        assert by_name["evaluate"]["state"] == "left"
        assert at_work["memory"] > 0
        assert at_work["tokens_per_second"] > 0
        assert at_work["seconds_left"] > 0
        assert {curve["model"] for curve in at_work["curves"]} == {"student", "control"}
        assert [text["step"] for text in at_work["texts"] if text["model"] == "student"] == [3, 6]
        assert all(len(text["texts"]) == 2 for text in at_work["texts"])
    with monkeypatch.context() as patch:
        patch.setattr(live, "SILENT", 0.0)
        killed = json.loads(get(port, "/state.json")[1])
    assert killed["state"] == "killed"
    assert killed["seconds_left"] is None
    assert killed["curves"] == at_work["curves"]

    words += ["--until", "control"]
    assert processes.run("-m", "potstill", *words).returncode == 0
    done = json.loads(get(port, "/state.json")[1])
    assert done["state"] == "waiting", "what comes after the control was not asked for"
    assert {step["name"]: step["state"] for step in done["steps"]}["control/seed-0"] == "done"
    control = next(curve for curve in done["curves"] if curve["model"] == "control")
    assert [step for step, _ in control["terms"]["loss"]] == [1, 2, 3, 4, 5, 6]
    assert next(pages, None) is None
