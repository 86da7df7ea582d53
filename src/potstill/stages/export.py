"""export: write a trained student in one format, and measure the file in the program that will run it.

Makes `export/STUDENT/FORMAT/`: the files, and `export.json` with their figures. A file that fails is not kept, and its
`export.json` has the reason. A stopped step goes on with the file that is there.
"""

from functools import partial
from pathlib import Path
from typing import Any

from potstill.console import say, size
from potstill.errors import UserError
from potstill.export import formats
from potstill.export.entries import write_entry, write_list
from potstill.export.gguf.tokenizer import prepared_text
from potstill.export.held_out import held_out_items
from potstill.export.measure import Compared, measured
from potstill.export.student import exported_student
from potstill.metrics.bootstrap import Resampling
from potstill.pipeline.steps import exported_by
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.export_formats import ExportFormat, file_type_of, format_of


def check(recipe: Recipe) -> None:
    """Refuse a format whose packages are not installed.

    Raises:
        UserError: it names the package.
    """
    assert recipe.export is not None
    for each in recipe.export.to:
        formats.check(each)


def run(work: Work) -> Made:
    """Export a student in one format."""
    assert work.step.name is not None
    format_, exported = format_of(work.step.name.rpartition("/")[2]), exported_by(work.recipe, work.step)
    work.folder.mkdir(parents=True, exist_ok=True)
    entry: dict[str, Any] = {"experiment": exported.label, "seed": exported.seed, "format": format_, "refused": None}
    try:
        entry |= _exported(work, format_)
    except UserError as error:
        formats.discard(work.folder)
        entry["refused"] = str(error)
        say(f"  {format_} refused: {error}")
    outputs = [*write_entry(work.folder, entry), *(work.folder / file for file in entry.get("files", ()))]
    write_list(work.recipe, work.run)
    return Made(outputs, {"made": _told(entry)})


def _exported(work: Work, format_: ExportFormat) -> dict[str, Any]:
    """The files of a format and their figures."""
    student, items = exported_student(work, exported_by(work.recipe, work.step)), held_out_items(work)
    place, notes = formats.write(student, format_, work.folder, work.run.folder.resolve().name)
    files = [place, *([modelfile] if (modelfile := work.folder / formats.MODELFILE).exists() else [])]
    resampling = Resampling(work.recipe.evaluate.confidence, work.recipe.evaluate.resamples)
    with formats.opened(student, format_, place, items.context) as engine:
        # Answers are compared up to the same ends.
        more_ends = formats.further_ends(student, engine)
        pair = Compared(
            formats.as_trained(student, more_ends),
            engine,
            format_,
            has_template=student.tokenizer.chat_template is not None,
            bos=formats.bos_text(student),
            prepare=str if file_type_of(format_) is None else partial(prepared_text, student.tokenizer),
        )
        figures = measured(pair, items, resampling)
    if more_ends:
        named = " and ".join(f"`{student.tokenizer.decode([end])}`" for end in more_ends)
        notes = [*notes, f"llama.cpp ends an answer at {named} too, after which the student writes on in transformers"]
    weights = _bytes(place)
    return {"files": [file.name for file in files], "bytes": weights, "engine": engine.name, "notes": notes, **figures}


def _bytes(place: Path) -> int:
    """The bytes of a file, or of the weights in a folder."""
    return sum(file.stat().st_size for file in ([place] if place.is_file() else place.glob("*.safetensors")))


def _told(entry: dict[str, Any]) -> str:
    if entry["refused"] is not None:
        return "refused"
    change = entry["loss_difference"]
    return (
        f"{size(entry['bytes'])}, loss {change['difference']:+.4f} ({change['low']:+.4f} to {change['high']:+.4f}), "
        f"{entry['answers_equal']} of {entry['answers']} answers equal"
    )
