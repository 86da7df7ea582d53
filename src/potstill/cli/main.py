"""The command line: one verb a stage, and what looks at a run. Heavy libraries are imported where a verb needs them."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from potstill.cli import faults
from potstill.cli.export import export_verb
from potstill.cli.faults import in_run
from potstill.cli.options import (
    AnswersFile,
    AsJson,
    BatchTokens,
    Calibrate,
    DataNames,
    Debug,
    Estimate,
    Fetch,
    FidelitySamples,
    Force,
    ForceThis,
    From,
    FromRuns,
    Host,
    KeyVariable,
    NewFile,
    OnMachine,
    Planned,
    PlotFile,
    Port,
    PromptToAnswer,
    RecipeName,
    RehearsalFolder,
    RunDir,
    RunFolder,
    RunFolders,
    Set,
    SetAnswers,
    SetTeacher,
    ShownConversations,
    StoreFolder,
    TeacherOfRun,
    TeacherToServe,
    Until,
    Watch,
    WhichModel,
    WhichSnapshots,
    Who,
)
from potstill.cli.quiet_libraries import quiet_libraries
from potstill.errors import UserError
from potstill.pipeline.graph import STAGES

if TYPE_CHECKING:
    from potstill.pipeline.run_folder import Run

app = typer.Typer(
    name="potstill",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_versions(asked: bool) -> None:
    if asked:
        print(faults.versions())
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_versions, is_eager=True, help="Print the versions, and stop.")
]


@app.callback()
def potstill(debug: Debug = False, version: Version = False) -> None:
    """Distil a large language model into a small one, and measure the gain."""


@app.command(rich_help_panel="Whole runs")
def run(recipe: RecipeName, run_dir: RunDir = None, until: Until = None, force: Force = None, set_: Set = None) -> None:
    """Run all stages of a recipe that are not done yet."""
    _run(recipe, run_dir, until, force or [], set_ or [])


def _run(recipe: str, run_dir: Path | None, until: str | None, force: list[str], overrides: list[str]) -> None:
    from potstill.pipeline.runner import run_recipe
    from potstill.recipe import load_recipe

    folder = _run_of(recipe, run_dir)
    with in_run(folder.folder):
        run_recipe(load_recipe(recipe, overrides), folder, until, force)
    if until in (None, "report"):
        print(f"the report: {folder.path('report') / 'index.html'}")


def _run_of(recipe: str, run_dir: Path | None) -> "Run":
    from potstill.pipeline.run_folder import Run

    return Run(run_dir or Path("runs") / Path(recipe).stem)


def _stage_verb(name: str) -> Callable[..., None]:
    def verb(recipe: RecipeName, run_dir: RunDir = None, force: ForceThis = False, set_: Set = None) -> None:
        _run(recipe, run_dir, name, [name] if force else [], set_ or [])

    return verb


def _capture(
    recipe: RecipeName, run_dir: RunDir = None, force: ForceThis = False, set_: Set = None, estimate: Estimate = False
) -> None:
    if not estimate:
        _run(recipe, run_dir, "capture", ["capture"] if force else [], set_ or [])
        return
    from potstill.cli.plan import forecast_capture
    from potstill.recipe import load_recipe

    folder = _run_of(recipe, run_dir)
    with in_run(folder.folder):
        print(forecast_capture(load_recipe(recipe, set_ or []), folder))


def _corpus(
    recipe: RecipeName,
    run_dir: RunDir = None,
    force: ForceThis = False,
    set_: Set = None,
    show: ShownConversations = 0,
) -> None:
    _run(recipe, run_dir, "corpus", ["corpus"] if force else [], set_ or [])
    if show:
        from potstill.cli.show_corpus import show_conversations

        show_conversations(_run_of(recipe, run_dir), show)


def _evaluate(
    recipe: RecipeName,
    run_dir: RunDir = None,
    force: ForceThis = False,
    set_: Set = None,
    snapshots: WhichSnapshots = None,
    watch: Watch = False,
) -> None:
    if snapshots is None and not watch:
        _run(recipe, run_dir, "evaluate", ["evaluate"] if force else [], set_ or [])
        return
    if run_dir is not None or force or set_:
        raise UserError(
            "`--snapshots` measures an existing run; give its folder, such as `runs/quickstart`, without other options"
        )
    from potstill.evaluation import snapshot_curves

    with in_run(Path(recipe)):
        print(snapshot_curves.curves_table(snapshot_curves.measure(Path(recipe), snapshots or "all", watch=watch)))


_OWN_VERBS: dict[str, Callable[..., None]] = {
    "capture": _capture,
    "corpus": _corpus,
    "evaluate": _evaluate,
    "export": export_verb(_run),
}
for _stage in STAGES:
    app.command(_stage.name, help=_stage.about, rich_help_panel="One stage, after the stages that it needs")(
        _OWN_VERBS.get(_stage.name) or _stage_verb(_stage.name)
    )


@app.command(rich_help_panel="Whole runs")
def plan(
    recipe: Planned,
    run_dir: RunDir = None,
    machine: OnMachine = None,
    calibrate: Calibrate = False,
    from_runs: FromRuns = False,
    as_json: AsJson = False,
    set_: Set = None,
) -> None:
    """Say what a run needs and costs, and whether it fits, before anything is run."""
    if from_runs:
        if run_dir is not None or machine is not None or calibrate or set_:
            raise UserError("`--from` reads finished runs only; leave the other options but `--json` out")
        from potstill.cli.plan_from import plan_from

        print(plan_from([Path(name) for name in recipe], as_json=as_json))
        return
    if len(recipe) > 1:
        raise UserError(f"`potstill plan` takes one recipe, not {len(recipe)}; give run folders after `--from`")
    from potstill.cli.plan import planned
    from potstill.recipe import load_recipe

    folder = _run_of(recipe[0], run_dir)
    print(planned(load_recipe(recipe[0], set_ or []), folder, machine, calibrate=calibrate, as_json=as_json))


@app.command(rich_help_panel="Looking at runs")
def status(run: RunFolder) -> None:
    """Show which stages of a run are done, which are left, and their times."""
    from potstill.pipeline.status import describe

    with in_run(run):
        print(describe(run))


@app.command(rich_help_panel="Looking at runs")
def check(run: RunFolder) -> None:
    """Read every output of a run again, and name each file that is not as it was written (exit code 1)."""
    from potstill.cli import check as checking

    damaged = False
    with in_run(run):
        for step in checking.check(run):
            print(step.line(), flush=True)
            damaged = damaged or bool(step.damaged)
    if damaged:
        raise SystemExit(1)


@app.command(rich_help_panel="Looking at runs")
def compare(runs: RunFolders, as_json: AsJson = False, plot: PlotFile = None) -> None:
    """Print the figures of one or more runs: model, metric, value, interval, n."""
    from potstill.cli.compare import comparison, comparison_table, write_plot

    with in_run(runs[0]):
        rows = comparison(runs)
        if plot is not None:
            write_plot(plot, runs)
        print(json.dumps(rows, indent=2) if as_json else comparison_table(rows))
        if plot is None and len(runs) > 1 and not as_json:
            typer.echo("`--plot FILE.html` draws quality against speed and size of these runs", err=True)


@app.command(rich_help_panel="Looking at runs")
def targets(store: StoreFolder, fidelity: FidelitySamples = 16, as_json: AsJson = False) -> None:
    """Describe and check a store of captured targets, and compare it with its teacher on some samples."""
    from potstill.evaluation.inspect_targets import inspect, inspection_lines

    found = inspect(store, fidelity)
    print(json.dumps(found, indent=2) if as_json else inspection_lines(found))


@app.command(rich_help_panel="Looking at runs")
def review(run: RunFolder, who: Who = None, export: AnswersFile = None) -> None:
    """Decide the answers that no rule could read, one after the other. You can stop and go on at any time."""
    from potstill.cli import review as reviewing

    with in_run(run):
        if export is None:
            reviewing.review(run, who)
        else:
            reviewing.export(run, export)


@app.command(rich_help_panel="Looking at runs")
def chat(run: RunFolder, prompt: PromptToAnswer = None, model: WhichModel = "all", set_: SetAnswers = None) -> None:
    """Talk to the teacher, the student and the control of a run, side by side."""
    from potstill.cli import chat as chatting

    with in_run(run):
        chatting.chat(run, model, prompt, set_ or [])


@app.command(rich_help_panel="Whole runs")
def serve(
    teacher: TeacherToServe,
    name: TeacherOfRun = None,
    set_: SetTeacher = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    key: KeyVariable = None,
    batch_tokens: BatchTokens = 16384,
) -> None:
    """Serve a teacher's hidden states to trainings on other machines, until Ctrl-C."""
    from potstill.cli import serve as serving

    address = serving.Address(host, port, key)
    serving.serve(teacher, name, set_ or [], address, batch_tokens)


@app.command(rich_help_panel="Recipes")
def recipes() -> None:
    """List the shipped recipes."""
    from potstill.recipe import load_recipe, shipped_recipes

    width = max(map(len, shipped_recipes()))
    for name in shipped_recipes():
        print(f"{name:<{width}}  {load_recipe(name).about}")


@app.command(rich_help_panel="Recipes")
def init(file: NewFile, from_: From = "quickstart") -> None:
    """Write your own recipe: a copy of a shipped one with its comments."""
    from potstill.files.atomic import write_text
    from potstill.recipe import read_recipe_text

    if file.exists():
        raise UserError(f"{file} is there already; choose another name")
    try:
        write_text(file, read_recipe_text(from_))
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({(error.strerror or str(error)).lower()}); choose another place"
        ) from error
    print(f"{file} written; `potstill run {file}` runs it")


@app.command(rich_help_panel="Recipes")
def show(recipe: RecipeName, set_: Set = None) -> None:
    """Print a recipe with overrides and defaults filled in. A setting that `run` would refuse is an error here too."""
    from potstill.recipe import load_recipe, recipe_text

    loaded = load_recipe(recipe, set_ or [])
    print(recipe_text(loaded), end="", flush=True)
    from potstill.pipeline.runner import check_stages

    # The data of `evaluate` may lie on the hub, and a look at a recipe must not download it.
    check_stages(loaded, without=["evaluate"])


@app.command(rich_help_panel="Recipes")
def rehearse(recipe: RecipeName, folder: RehearsalFolder = None, set_: Set = None) -> None:
    """Run the whole pipeline of a recipe with small models and short texts, in minutes and without a network."""
    from potstill.cli.rehearse import rehearsed

    if not rehearsed(recipe, folder, set_ or []):
        raise SystemExit(1)


@app.command(rich_help_panel="Recipes")
def data(names: DataNames = None, fetch: Fetch = False) -> None:
    """List the public data that recipes name: what it is, its licence, and where it is on this machine."""
    from potstill.cli import data as listing

    print(listing.fetched(names or []) if fetch else listing.described(names or []))


@app.command(rich_help_panel="Recipes")
def schema() -> None:
    """Print the JSON Schema of recipes, which editors use for completion."""
    from potstill.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(by_alias=True), indent=2))


def main() -> None:
    """Run the command line.

    A user's mistake gives one sentence and exit code 2; a fault of potstill one sentence, a file and exit code 70.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    quiet_libraries()
    try:
        code = _call(arguments or ["--help"])
        sys.stdout.flush()
    except BrokenPipeError:
        faults.drop_output()
        code = 1
    except (UserError, TyperException) as error:
        if debug:
            raise
        faults.let_earlier_ranks_speak()
        print(f"potstill: {_sentence(error)}", file=sys.stderr)
        code = 2
    except Exception as error:  # noqa: BLE001 (whatever it is, the user must not have to read a traceback)
        code = faults.report(error, arguments, debug=debug)
    sys.exit(code)


def _call(arguments: Sequence[str]) -> int:
    code = app(args=arguments, prog_name="potstill", standalone_mode=False)
    if code == 130:  # typer's code for Ctrl-C
        print("\npotstill: stopped; the same command goes on from here", file=sys.stderr)
    return code or 0


def _sentence(error: UserError | TyperException) -> str:
    if isinstance(error, UserError):
        return str(error)
    message, context = error.format_message().strip().rstrip("."), getattr(error, "ctx", None)
    return f"{message[:1].lower()}{message[1:]}; see `{context.command_path if context else 'potstill'} --help`"


if __name__ == "__main__":
    main()
