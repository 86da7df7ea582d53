"""The command line: its verbs and options, its output and its exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import minimal
from potstill.cli import main
from potstill.errors import UserError
from potstill.pipeline import runner
from potstill.pipeline.graph import STAGES
from potstill.pipeline.recipe_inputs import INTERVALS
from potstill.pipeline.run_folder import Run
from potstill.recipe import Recipe, load_recipe, read_recipe_text
from potstill.recipe.step import Step
from tiny import toy_overrides

STAGE = ["recipe", "--run-dir", "--force", "--set"]
VERBS = {
    "run": ["recipe", "--run-dir", "--until", "--force", "--set"],
    "teachers": STAGE,
    "tokenizer": STAGE,
    "corpus": [*STAGE, "--show"],
    "pretrain": STAGE,
    "student": STAGE,
    "generate": STAGE,
    "strategies": STAGE,
    "capture": [*STAGE, "--estimate"],
    "search": STAGE,
    "distil": STAGE,
    "control": STAGE,
    "select": STAGE,
    "answers": STAGE,
    "export": ["recipe", "--to", "--experiment", "--run-dir", "--force", "--set"],
    "evaluate": [*STAGE, "--snapshots", "--watch"],
    "report": STAGE,
    "plan": ["recipe", "--run-dir", "--machine", "--calibrate", "--from", "--json", "--set"],
    "status": ["run"],
    "watch": ["run", "--port", "--terminal"],
    "runs": ["folder"],
    "clean": ["run", "--yes"],
    "push": ["run", "--to", "--private", "--dry-run", "--experiment", "--export", "--licence"],
    "check": ["run"],
    "compare": ["runs", "--json", "--plot"],
    "targets": ["store", "--fidelity", "--json"],
    "review": ["run", "--who", "--export"],
    "chat": ["run", "--prompt", "--model", "--set"],
    "serve": ["teacher", "--teacher", "--set", "--host", "--port", "--key", "--batch-tokens"],
    "recipes": [],
    "init": ["file", "--from"],
    "show": ["recipe", "--set"],
    "rehearse": ["recipe", "--folder", "--set"],
    "data": ["names", "--fetch"],
    "schema": [],
}
"""Every verb with its arguments and options. Users' scripts depend on them."""


@pytest.fixture
def asked(monkeypatch):
    """The calls of the runner, which does nothing."""
    calls = []
    monkeypatch.setattr(
        runner, "run_recipe", lambda recipe, run, until, force: calls.append((run, recipe, until, force))
    )
    return calls


def shell(*arguments, cwd=None):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, check=False)


def test_the_verbs_and_their_options():
    commands = get_command(main.app).commands
    assert {name: [param.opts[0] for param in command.params] for name, command in commands.items()} == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_names_its_options(call, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = call(verb, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: potstill {verb}" in out
    assert all(name in out for name in VERBS[verb])
    command = get_command(main.app).commands[verb]
    assert command.help
    assert all(param.help for param in command.params), f"an option of {verb} has no help"


def test_without_a_verb_it_lists_the_verbs(call):
    code, out, _ = call()
    assert code == 0
    assert all(verb in out for verb in VERBS)
    assert "--debug" in out


def test_every_stage_is_a_verb_in_order():
    verbs = list(get_command(main.app).commands)
    assert verbs[1 : 1 + len(STAGES)] == [stage.name for stage in STAGES]


def test_help_needs_no_heavy_library():
    code = (
        "import sys; from potstill.cli.main import main; sys.argv = ['potstill', '--help']\n"
        "try: main()\n"
        "except SystemExit: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    ended = shell("-c", code)
    loaded = set(ended.stderr.split())
    assert "Usage: potstill" in ended.stdout
    assert "typer" in loaded
    assert not loaded & {"torch", "transformers", "pydantic", "datasets", "numpy", "ruamel", "codecarbon"}


def test_a_users_mistake_is_one_sentence_and_exit_code_2(tmp_path):
    ended = shell("-m", "potstill", "run", "no-such-recipe", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("potstill: there is no recipe file 'no-such-recipe'")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--debug", "show", "nothing"), ("show", "nothing", "--debug")])
def test_debug_shows_the_traceback(tmp_path, arguments):
    ended = shell("-m", "potstill", *arguments, cwd=tmp_path)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "UserError: there is no recipe file 'nothing'" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said", "verb"),
    [
        (["frobnicate"], "no such command 'frobnicate'", "potstill"),
        (["run"], "missing argument 'recipe'", "potstill run"),
        (["run", "quickstart", "--nope"], "no such option: --nope", "potstill run"),
        (["compare"], "missing argument 'runs'", "potstill compare"),
        (["run", "quickstart", "--until"], "option '--until' requires an argument", "potstill"),
        (["schema", "x"], "got unexpected extra argument", "potstill schema"),
        (["corpus", "x", "--until", "report"], "no such option: --until", "potstill corpus"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_code_2(call, arguments, said, verb):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"potstill: {said}")
    assert err.endswith(f"; see `{verb} --help`\n")
    assert err.count("\n") == 1


def test_ctrl_c_says_that_nothing_is_lost(call, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_recipe", interrupted)
    code, _, err = call("run", "quickstart")
    assert code == 130
    assert err == "\npotstill: stopped; the same command goes on from here\n"


@pytest.mark.parametrize("shown", ["--version", "--help", "--install-completion", "--show-completion"])
def test_the_help_names_what_needs_no_verb(call, shown):
    assert shown in call("--help")[1]


def test_the_versions_need_no_library():
    from importlib.metadata import version

    code = "import sys; from potstill.cli.main import main; sys.argv = ['potstill', '--version']\n"
    code += "try: main()\nexcept SystemExit as end: print(end.code, 'torch' in sys.modules, file=sys.stderr)"
    ended = shell("-c", code)
    assert ended.stdout == ", ".join(f"{name} {version(name)}" for name in ("potstill", "torch", "transformers")) + "\n"
    assert ended.stderr == "0 False\n"


def test_the_shell_completes_verbs():
    code = "import sys; from potstill.cli.main import main; sys.argv = ['potstill']; main()"
    asked = {"_POTSTILL_COMPLETE": "complete_bash", "COMP_WORDS": "potstill corp", "COMP_CWORD": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert ended.stdout.split() == ["corpus"]


def test_type_checkers_find_the_types():
    import potstill

    assert (Path(potstill.__file__).parent / "py.typed").is_file()


def test_run_passes_its_options_to_the_runner(call, asked):
    options = ("--run-dir", "here", "--until", "evaluate", "--force", "corpus", "--force", "capture")
    assert call("run", "quickstart", *options, "--set", "about=x", "--set", "seeds=[4]")[0] == 0
    ((run, recipe, until, force),) = asked
    assert run.folder == Path("here")
    assert (recipe.about, recipe.seeds) == ("x", [4])
    assert (until, force) == ("evaluate", ["corpus", "capture"])


def test_a_run_has_the_recipes_name_and_prints_the_path_of_the_report(call, asked, tmp_path):
    (tmp_path / "my.half.yaml").write_text(minimal.TEXT)
    _, out, _ = call("run", "my.half.yaml")
    assert asked[0][0].folder == Path("runs/my.half")
    assert asked[0][2:] == (None, [])
    assert out == "the report: runs/my.half/report/index.html\n"
    assert call("run", "quickstart", "--until", "corpus")[1] == ""


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
def test_the_verb_of_a_stage_runs_up_to_it(call, asked, stage):
    assert call(stage, "quickstart")[0] == 0
    assert call(stage, "quickstart", "--force")[0] == 0
    assert [(until, force) for _, _, until, force in asked] == [(stage, []), (stage, [stage])]


def test_recipes_lists_the_shipped_recipes_with_a_sentence_each(call):
    code, out, _ = call("recipes")
    assert code == 0
    listed = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert listed["quickstart"] == load_recipe("quickstart").about
    assert list(listed) == sorted(listed)


def test_init_copies_a_recipe_with_its_comments(call, tmp_path):
    code, out, _ = call("init", "my.yaml", "--from", "quickstart")
    assert (code, out) == (0, "my.yaml written; `potstill run my.yaml` runs it\n")
    assert (tmp_path / "my.yaml").read_text() == read_recipe_text("quickstart")
    assert load_recipe("my.yaml") == load_recipe("quickstart")
    assert call("init", "yours.yaml", "--from", "my.yaml")[0] == 0
    assert (tmp_path / "yours.yaml").read_text() == (tmp_path / "my.yaml").read_text()


def test_init_never_overwrites_a_file(call, tmp_path):
    (tmp_path / "my.yaml").write_text("precious")
    code, _, err = call("init", "my.yaml")
    assert (code, err) == (2, "potstill: my.yaml is there already; choose another name\n")
    assert (tmp_path / "my.yaml").read_text() == "precious"


@pytest.mark.parametrize("arguments", [("no/such/my.yaml",), ("my.yaml", "--from", "quikstart")])
def test_a_failed_init_leaves_no_file(call, tmp_path, arguments):
    code, _, err = call("init", *arguments)
    assert code == 2
    assert err.startswith("potstill: ")
    assert list(tmp_path.iterdir()) == []


def test_show_prints_a_recipe_with_overrides_and_defaults(call, tmp_path):
    code, out, _ = call("show", "quickstart", "--set", "student.layers=3")
    assert code == 0
    (tmp_path / "shown.yaml").write_text(out)
    assert load_recipe("shown.yaml") == load_recipe("quickstart", ["student.layers=3"])
    assert "confidence: 0.95" in out, "defaults are filled in"


@pytest.mark.parametrize("key", ["distil", "control"])
def test_show_says_what_run_would_say(call, tmp_path, key):
    minimal.inputs(tmp_path)
    recipe = str(minimal.write(tmp_path))
    wrong = ["--set", f"{key}.training.optim=adamw_tor"]
    code, out, shown = call("show", recipe, *wrong)
    assert code == 2
    assert "adamw_tor" in out, "the recipe itself is shown all the same"
    assert call("run", recipe, *wrong) == (2, "", shown)
    assert f"`{key}.training.optim`" in shown
    assert not (tmp_path / "runs" / "recipe" / "corpus").exists(), "nothing was spent"


def test_schema_prints_the_schema_of_recipes(call):
    code, out, _ = call("schema")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(Recipe.model_json_schema(by_alias=True)))


@pytest.fixture
def finished(tmp_path):
    """A run whose evaluation is done, in the form in which the runner leaves it."""
    run, step = Run(tmp_path / "runs" / "mine"), Step("evaluate")
    recipe = minimal.recipe(tmp_path).model_dump(mode="json", by_alias=True)
    with run.open(recipe):
        pass
    run.begin(step, {"recipe": {"intervals": INTERVALS}}, recipe)
    row = {"model": "student", "metric": "loss", "value": 4.5, "low": 4.25, "high": 4.75, "n": 20}
    comparison = run.path(step) / "comparison.json"
    comparison.write_text(json.dumps({"rows": [row], "paired": []}))
    run.finish(step, {"seconds": 61.0}, [comparison], {})
    return run


def test_status_shows_the_done_and_the_remaining_stages(call, finished):
    code, out, _ = call("status", "runs/mine")
    assert code == 0
    assert "corpus           left\n" in out
    assert "1 min 01 s" in out


def test_compare_prints_a_table_or_json(call, finished):
    assert call("compare", "runs/mine")[1].splitlines() == [
        "run   model    metric  value  low   high  n",
        "mine  student  loss    4.5    4.25  4.75  20",
    ]
    code, out, _ = call("compare", "runs/mine", "--json")
    assert code == 0
    assert [(row["run"], row["model"], row["n"]) for row in json.loads(out)] == [("mine", "student", 20)]


@pytest.mark.parametrize(
    ("runs", "more", "asked"), [(2, [], [False]), (1, [], []), (2, ["--json"], []), (2, ["--plot", "page.html"], [])]
)
def test_several_runs_are_drawn_where_no_file_and_no_json_is_asked_for(call, finished, monkeypatch, runs, more, asked):
    told = []
    monkeypatch.setattr("potstill.cli.compare.write_plot", lambda *_: None)
    monkeypatch.setattr("potstill.cli.compare.draw_unasked", lambda _, at_terminal: told.append(at_terminal) or "drawn")
    code, _, err = call("compare", *["runs/mine"] * runs, *more)
    assert code == 0
    # What the tests print does not go to a terminal.
    assert told == asked
    assert ("drawn" in err) == bool(asked)


@pytest.mark.parametrize("verb", ["status", "compare", "review"])
def test_a_folder_that_is_not_a_run_is_refused(call, verb):
    code, _, err = call(verb, "nowhere")
    assert (code, err) == (2, "potstill: nowhere is no run folder; `potstill run RECIPE` makes one under runs/\n")


def test_a_user_error_of_any_stage_is_printed(call, monkeypatch):
    def refuse(*_):
        raise UserError("`corpus.sources`: no")

    monkeypatch.setattr(runner, "run_recipe", refuse)
    assert call("corpus", "quickstart") == (2, "", "potstill: `corpus.sources`: no\n")


def test_check_ends_with_1_where_something_is_damaged(call, tmp_path):
    run = Run(tmp_path / "run")
    with run.open({}):
        run.begin(Step("corpus"), {}, {})
        made = run.path("corpus") / "text.txt"
        made.write_text("made")
        run.finish(Step("corpus"), {"seconds": 1.0}, [made], {})
    assert call("check", "run") == (0, "corpus: whole, 1 file\n", "")
    made.write_text("mode")
    assert call("check", "run") == (1, "corpus: text.txt is damaged\n", "")


NOTHING_TO_SAY = [["show", "quickstart"], ["recipes"], ["--version"], ["--help"], ["schema"]]


@pytest.mark.parametrize("arguments", NOTHING_TO_SAY, ids=" ".join)
def test_a_verb_that_only_shows_something_prints_no_noise(tmp_path, arguments):
    ended = shell("-m", "potstill", *arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout


def test_a_toy_run_and_its_status_print_no_noise_of_libraries(toy_folder, tmp_path):
    adapter = ["student.adapter={r: 2, target_modules: [q_proj]}", "distil.training.activation_checkpointing=true"]
    sets = [word for given in [*toy_overrides("quickstart", toy_folder), *adapter] for word in ("--set", given)]
    for arguments in (["run", "quickstart", "--run-dir", "run", *sets], ["status", "run"], ["compare", "run"]):
        ended = shell("-m", "potstill", *arguments, cwd=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")
