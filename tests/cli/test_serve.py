"""`potstill serve`: which teacher, at which address, with which key; how it starts and how it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from potstill.cli import serve as serving
from potstill.cli.serve import Address, serve
from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.teachers.serving import server
from tiny import llama, save_model, toy_recipe
from toy_server import asked, refusal

HERE = Address("127.0.0.1", 0, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(llama(0), tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def hosted(monkeypatch):
    """What would be served, and where, in place of serving it."""
    found = []
    monkeypatch.setattr(server, "application", lambda model, key: (model, key))
    monkeypatch.setattr(server, "serve", lambda app, host, port, tell: found.append((*app, host, port)))
    return found


def test_a_folder_is_served_in_the_number_format_that_is_asked_for(folder, hosted):
    serve(str(folder), None, ["dtype=bfloat16"], HERE, 512)
    ((model, key, host, port),) = hosted
    assert (model.facts.teacher.dtype, model.facts.most_tokens, model.facts.teacher.model) == (
        "bfloat16",
        512,
        str(folder),
    )
    assert (key, host, port) == (None, "127.0.0.1", 0)


@pytest.fixture(scope="module")
def run(toy_folder, tmp_path_factory):
    """A run that has prepared its teacher."""
    made = Run(tmp_path_factory.mktemp("runs") / "toy")
    run_recipe(toy_recipe(toy_folder), made, "teachers")
    return made.folder


@pytest.mark.parametrize("name", [None, "t"])
def test_a_teacher_of_a_run_is_served(run, hosted, name):
    names = list(json.loads((run / "recipe.json").read_text())["teachers"])
    assert len(names) == 1
    serve(str(run), name and names[0], [], HERE, 512)
    pointer = json.loads((run / "teachers" / names[0] / "teacher.json").read_text())
    assert hosted[0][0].facts.teacher.fingerprint == pointer["fingerprint"]
    assert hosted[0][0].facts.teacher.model == names[0]


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("other", [], "name a teacher of .* with `--teacher`"),
        (None, ["dtype=float32"], "`--set` is for a model by its name"),
    ],
)
def test_what_a_run_cannot_serve_is_refused(run, hosted, name, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        serve(str(run), name, settings, HERE, 512)


def test_a_teacher_that_a_run_has_not_prepared_is_refused(toy_folder, tmp_path, hosted):
    run_recipe(toy_recipe(toy_folder), Run(tmp_path), "teachers")
    (tmp_path / "teachers" / "manifest.json").unlink()
    with pytest.raises(UserError, match="because `teachers` is not done; run `potstill teachers RECIPE`"):
        serve(str(tmp_path), None, [], HERE, 512)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("t", [], "`--teacher t` is for a run folder"),
        (None, ["dtype=int3"], "--set: `dtype`: must be"),
        (None, ["k=3"], "--set: `k`"),
        (None, ["gguf=no.gguf"], "there is no file 'no.gguf'"),
    ],
)
def test_what_cannot_be_loaded_is_refused(folder, hosted, name, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        serve(str(folder), name, settings, HERE, 512)
    assert not hosted


@pytest.mark.parametrize("value", [None, "", "two words", "a\nb", "schlüssel"])
def test_a_key_that_no_request_can_carry_is_refused(folder, hosted, monkeypatch, value):
    monkeypatch.delenv("A_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("A_KEY", value)
    with pytest.raises(UserError, match="`--key A_KEY`") as refused:
        serve(str(folder), None, [], Address("127.0.0.1", 0, "A_KEY"), 512)
    assert not value or value not in str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "no such host"])
def test_another_address_is_refused_before_anything_is_loaded(hosted, host):
    with pytest.raises(UserError, match=f"`--host {host}`"):
        serve("no-such-model", None, [], Address(host, 0, None), 512)


def test_without_aiohttp_the_sentence_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "potstill.teachers.serving.server", None)
    with pytest.raises(UserError, match=r"pip install 'potstill\[serve\]'"):
        serve(str(folder), None, [], HERE, 512)


def test_the_command_hands_its_options_on(call, monkeypatch):
    given = []
    monkeypatch.setattr(serving, "serve", lambda *options: given.append(options))
    options = ["--teacher", "t", "--set", "dtype=float32", "--host", "::1", "--port", "0", "--key", "K"]
    assert call("serve", "runs/r", *options, "--batch-tokens", "64")[0] == 0
    assert given == [("runs/r", "t", ["dtype=float32"], Address("::1", 0, "K"), 64)]


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(folder, capsys, name):
    def end(line):
        print(line)
        os.kill(os.getpid(), name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "say", end)
        serve(str(folder), None, [], HERE, 512)
    assert "without a key; Ctrl-C ends it" in capsys.readouterr().out


@pytest.mark.slow
def test_a_process_serves_until_it_is_told_to_end(folder, tmp_path):
    command = [sys.executable, "-m", "potstill", "serve", str(folder), "--port", "0", "--key", "A_KEY"]
    environment = os.environ | {"A_KEY": "secret", "PYTHONPATH": str(Path(serving.__file__).parents[2])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        line = process.stdout.readline()
        url = next(word for word in line.split() if word.startswith("http://"))
        assert refusal(f"{url}/facts")[0] == 401
        assert asked(f"{url}/facts", Authorization="Bearer secret")[0] == 200
        process.terminate()
        out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "", "")
    assert "secret" not in line
