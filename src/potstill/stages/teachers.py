"""teachers: find, convert and pin every teacher, and check that all of them have the same tokens, unless losses are
across tokenizers."""

from typing import Any

from potstill.console import say, size
from potstill.data.tokenizers import check_same_tokens
from potstill.models.quantization import quantization_of
from potstill.pipeline import artifacts
from potstill.pipeline.work import Made, Work
from potstill.recipe.across_tokenizers import crossing_loss, remedy_without_crossing_loss
from potstill.servers.model import ServedModel
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import PreparedTeacher


def run(work: Work) -> Made:
    """Prepare each teacher in a folder with its name."""
    folders = [prepare(name, teacher, work.folder / name) for name, teacher in work.recipe.teachers.items()]
    teachers = artifacts.existing_teachers(work)
    first, *others = teachers
    for other in [] if crossing_loss(work.recipe) else others:
        one, two = f"teachers.{first.name}", f"teachers.{other.name}"
        check_same_tokens(first.tokenizer(), other.tokenizer(), one, two, remedy_without_crossing_loss(work.recipe))
    if work.recipe.distributed.strategy == "fsdp2" and work.recipe.capture is None:
        for teacher in teachers:
            teacher.check_shardable()
    summary: dict[str, dict[str, Any]] = {}
    for teacher, folder in zip(teachers, folders, strict=True):
        kept = sum(file.stat().st_size for file in folder.iterdir())
        parameters, how = teacher.parameters(), how_it_runs(teacher)
        said = [*([] if parameters is None else [f"{parameters:,} parameters"]), *([how] if how else [])]
        say(f"  {teacher.name}: {', '.join(said)}, {size(kept)} in the run folder")
        summary[teacher.name] = {"parameters": parameters, "fingerprint": teacher.fingerprint}
        if teacher.served is not None:
            summary[teacher.name] |= _as_served(teacher.served)
        if teacher.hosted is not None:
            summary[teacher.name] |= {"hosted": {"model": teacher.hosted.model, "dtype": teacher.hosted.dtype}}
    return Made(folders, summary | {"made": f"{', '.join(summary)}: found, pinned, ready to load"})


def _as_served(model: ServedModel) -> dict[str, Any]:
    """What the manifest says of a served model."""
    facts = {"model": model.name, "version": model.version, "longest": model.longest}
    return {"served": facts | {"noise": {"largest": model.floor.largest, "mean": model.floor.mean}}}


def how_it_runs(teacher: PreparedTeacher) -> str:
    """How a teacher runs, in a few words; empty if it runs with plain weights."""
    if teacher.served is not None:
        noise = f"same answers within {teacher.served.floor.largest:.2g} nats"
        return f"{teacher.served.name} behind a server ({noise})"
    if teacher.hosted is not None:
        return f"{teacher.hosted.model} behind `potstill serve`, in {teacher.hosted.dtype}"
    if teacher.llama_cpp is not None:
        return "run by llama.cpp"
    if teacher.quantization is not None:
        return f"quantised by {teacher.quantization['quant_method']}"
    already = quantization_of(teacher.config())
    if already is not None:
        method = already.get("quant_method") if isinstance(already, dict) else already.quant_method
        return f"a checkpoint quantised by {getattr(method, 'value', method)}"
    return ""
