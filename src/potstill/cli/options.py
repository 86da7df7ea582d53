"""Options: the arguments and options of the verbs, each said once."""

from pathlib import Path
from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe (`potstill recipes`).")]
RunDir = Annotated[Path | None, typer.Option(help="The run folder. Default: runs/<the recipe's name>.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")]
Force = Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Run this stage again, even if it is done.")]
ForceThis = Annotated[bool, typer.Option("--force", help="Run the stage again, even if it is done.")]
Estimate = Annotated[bool, typer.Option("--estimate", help="Print the capture's cost in bytes and hours, and stop.")]
WhichSnapshots = Annotated[
    str | None,
    typer.Option(
        metavar="WHICH",
        help="Measure snapshots: `all`, `every:10`, `last:5` or `100,200`. RECIPE is then the run folder.",
    ),
]
Watch = Annotated[bool, typer.Option("--watch", help="Measure snapshots as they appear, until the training ends.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.")]
RecipeOrRun = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run; or a recipe.")]
ToFormats = Annotated[
    str | None,
    typer.Option(
        metavar="FORMATS",
        help="gguf:F16, gguf:BF16, gguf:Q8_0, gguf:Q6_K, gguf:Q5_K_M, gguf:Q4_K_M, merged, int8; commas between them.",
    ),
]
StudentsToExport = Annotated[
    list[str] | None,
    typer.Option("--experiment", metavar="NAME", help="A student of the recipe's `experiments`. Default: all."),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.")]
RunFolders = Annotated[list[Path], typer.Argument(help="Run folders.")]
StoreFolder = Annotated[Path, typer.Argument(help="The folder of a store, such as RUN/capture/TEACHER.")]
FidelitySamples = Annotated[
    int, typer.Option(metavar="SAMPLES", help="The number of samples to compare with the teacher; 0 for none.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PlotFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write a page that draws quality against speed and size of the runs' models."),
]
Who = Annotated[
    str | None, typer.Option(metavar="NAME", help="The name of the person who decides. Default: the login name.")
]
AnswersFile = Annotated[
    Path | None,
    typer.Option(
        "--export", metavar="FILE", help="Write all answers to this CSV file, and stop. In it, -1 means no answer."
    ),
]
ShownConversations = Annotated[
    int, typer.Option("--show", metavar="COUNT", min=0, max=10, help="Print so many conversations of each source.")
]
OnMachine = Annotated[
    str | None,
    typer.Option("--machine", metavar="FILE|NAME", help="Plan for another machine: a YAML file, or a known name."),
]
Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Try two real steps of each kind here, and scale by them.")
]
NewFile = Annotated[Path, typer.Argument(help="The recipe file to write.")]
From = Annotated[str, typer.Option("--from", metavar="RECIPE", help="The recipe to copy.")]
DataNames = Annotated[list[str] | None, typer.Argument(help="Names of data. Default: all.")]
Fetch = Annotated[
    bool, typer.Option("--fetch", help="Fetch what is not on this machine. A file that is another one is an error.")
]
RehearsalFolder = Annotated[
    Path | None, typer.Option(help="The folder of the rehearsal. Default: rehearsals/<the recipe's name>.")
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error. It may stand anywhere on the line.")
]
Planned = Annotated[
    list[str], typer.Argument(metavar="RECIPE", help="A recipe file or the name of one; with `--from`, run folders.")
]
FromRuns = Annotated[
    bool, typer.Option("--from", help="Fit loss against tokens and size on finished runs, given as RUN RUN ….")
]
WhichModel = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        help="`teacher`, `student`, `control`, `start`, one of several by its name, or `all`.",
    ),
]
PromptToAnswer = Annotated[
    str | None, typer.Option("--prompt", metavar="TEXT", help="Answer this, and stop. Default: talk in the terminal.")
]
SetAnswers = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="How models answer: max_new_tokens, system, temperature, top_p, top_k, seed.",
    ),
]
TeacherToServe = Annotated[
    str,
    typer.Argument(metavar="TEACHER", help="A model: a name on the hub or a folder; or the run folder of a teacher."),
]
TeacherOfRun = Annotated[
    str | None, typer.Option("--teacher", metavar="NAME", help="The teacher to serve, where TEACHER is a run folder.")
]
SetTeacher = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A key of a recipe's `teachers.NAME`: revision, gguf, dtype, quantization, device_map.",
    ),
]
Host = Annotated[str, typer.Option(help="The address to bind. Any but this machine's own needs `--key`.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port to bind; 0: a free one.")]
KeyVariable = Annotated[
    str | None, typer.Option("--key", metavar="ENV", help="The environment variable with the key of each request.")
]
BatchTokens = Annotated[
    int, typer.Option(min=1, metavar="TOKENS", help="The most tokens that the teacher reads at once, pads included.")
]
RunsFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder with run folders, or one of them.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Repository = Annotated[str, typer.Option("--to", metavar="USER/NAME", help="The repository on the Hugging Face hub.")]
Private = Annotated[bool, typer.Option("--private", help="Make the repository private, if it is new.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the files with their sizes, and send nothing.")]
StudentToPush = Annotated[
    str | None, typer.Option("--experiment", metavar="NAME", help="The student, where the run has several.")
]
ExportsToPush = Annotated[
    list[str] | None,
    typer.Option("--export", metavar="FORMAT", help="Upload exported files too: `gguf:Q8_0`, `merged`, …, or `all`."),
]
Licence = Annotated[
    str | None,
    typer.Option("--licence", metavar="ID", help="The student's licence, once you have checked what it inherits."),
]
PagePort = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port of the page; 0: a free one.")]
InTerminal = Annotated[bool, typer.Option("--terminal", help="Show the run here in place of a page.")]
