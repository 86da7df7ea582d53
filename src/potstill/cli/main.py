"""The command line: one verb a stage, and what looks at a run. Heavy libraries are imported where a verb needs them."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from potstill.cli import faults, recipe_verbs
from potstill.cli.export import export_verb
from potstill.cli.faults import in_run
from potstill.cli.native_libraries import set_native_libraries
from potstill.cli.options import (
    AnswersFile,
    AsJson,
    BatchTokens,
    Calibrate,
    Debug,
    DryRun,
    Estimate,
    ExportsToPush,
    FidelitySamples,
    Force,
    ForceThis,
    FromRuns,
    Host,
    InTerminal,
    KeyVariable,
    Licence,
    OnMachine,
    PagePort,
    Planned,
    PlotFile,
    Port,
    Private,
    PromptToAnswer,
    RecipeName,
    Repository,
    RunDir,
    RunFolder,
    RunFolders,
    RunsFolder,
    Set,
    SetAnswers,
    SetTeacher,
    ShownConversations,
    StoreFolder,
    StudentToPush,
    TeacherOfRun,
    TeacherToServe,
    Until,
    Watch,
    WhichModel,
    WhichSnapshots,
    Who,
    Yes,
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
def runs(folder: RunsFolder = Path("runs")) -> None:
    """List the runs of a folder: verdict, student, size of the student, date, size on disk."""
    from potstill.cli.runs import runs_table

    print(runs_table(folder))


@app.command(rich_help_panel="Looking at runs")
def clean(run: RunFolder, yes: Yes = False) -> None:
    """Remove what of a run can be made again, after a question. The student, the figures and the logs stay."""
    from potstill.cli.clean import clean_run

    with in_run(run):
        print(clean_run(run, yes=yes))


@app.command(rich_help_panel="Whole runs")
def push(
    run: RunFolder,
    to: Repository,
    private: Private = False,
    dry_run: DryRun = False,
    experiment: StudentToPush = None,
    export: ExportsToPush = None,
    licence: Licence = None,
) -> None:
    """Upload the student with its card to the Hugging Face hub. A stopped upload goes on."""
    from potstill.cli.push import Sharing, push_run

    with in_run(run):
        print(push_run(run, Sharing(to, private, dry_run, experiment, export or [], licence)))


@app.command(rich_help_panel="Looking at runs")
def watch(run: RunFolder, port: PagePort = 8300, terminal: InTerminal = False) -> None:
    """Show a run while it is at work: a page on this machine, or a view in the terminal."""
    from potstill.cli import watch as watching

    watching.watch(run, port, terminal=terminal)


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
    """Print the figures of one or more runs: model, metric, value, interval, n.

    In a terminal, several runs are also drawn into compare.html.
    """
    from potstill.cli.compare import comparison, comparison_table, draw_unasked, write_plot

    with in_run(runs[0]):
        rows = comparison(runs)
        if plot is not None:
            write_plot(plot, runs)
        print(json.dumps(rows, indent=2) if as_json else comparison_table(rows))
        if plot is None and len(runs) > 1 and not as_json:
            typer.echo(draw_unasked(runs, at_terminal=sys.stdout.isatty()), err=True)


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


app.add_typer(recipe_verbs.app)


def main() -> None:
    """Run the command line.

    A user's mistake gives one sentence and exit code 2; a fault of potstill one sentence, a file and exit code 70.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    quiet_libraries()
    set_native_libraries()
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
