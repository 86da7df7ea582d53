"""Section `evaluation`: a teacher and three models on held-out text, over one forward of each of them.

The forward is body, head and cross-entropy. The fastest way of those tried counts.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.aims import Measured
from benchmarks.models import Shape, make_model
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import Action, Times, measure
from potstill.losses.token_scores import score_tokens
from potstill.metrics.held_out_text import SideBySide, outputs_of
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of
from potstill.teachers.live import LiveTeacher

STUDENTS = ("start", "student", "control")
WHOLE = "evaluation of all four"


def shape(settings: Settings) -> Shape:
    """The sizes of the models: those of SmolLM2-135M and of half its layers, or toys."""
    if settings.quick:
        return Shape(8000, 192, 2, 4, rows=2, length=64)
    if settings.device.type == "cuda":
        return Shape(128256, 2048, student_layers=4, teacher_layers=8, rows=8, length=1024)
    return Shape(49152, 576, student_layers=15, teacher_layers=30, rows=4, length=128)


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure in the number formats that the device computes fast."""
    dtypes = [torch.bfloat16] if settings.device.type == "cuda" else [torch.float32, torch.bfloat16]
    tables, measured = [], []
    for dtype in dtypes:
        table, found = _evaluation(settings, dtype)
        tables.append(table)
        measured.append(found)
    return tables, measured


def _evaluation(settings: Settings, dtype: torch.dtype) -> tuple[Table, Measured]:
    sizes, name = shape(settings), "fp32" if dtype == torch.float32 else "bf16"
    say(f"evaluation: {name}")
    torch.manual_seed(0)
    layers = {"teacher": sizes.teacher_layers} | dict.fromkeys(STUDENTS, sizes.student_layers)
    with settings.device:
        made = {one: make_model(sizes.config(count)) for one, count in layers.items()}
    models = {one: model.to(dtype).eval().requires_grad_(False) for one, model in made.items()}
    ids = torch.randint(0, sizes.vocabulary, (sizes.rows, sizes.length)).to(settings.device)
    batch = {"input_ids": ids, "labels": ids}
    readers = SideBySide(
        {"teacher": LiveTeacher(models["teacher"]).target},
        (1.0,),
        "probabilities",
        {one: outputs_of(models[one]) for one in STUDENTS},
    )
    actions: dict[str, Action] = {WHOLE: partial(readers.read, batch)}
    for one, model in models.items():
        actions[f"{one}, transformers"] = partial(_transformers_forward, model, batch)
        actions[f"{one}, by the chunk"] = partial(_chunked_forward(model), batch)
    times = measure(actions, settings.rounds, settings.device)
    fastest = [times.fastest([f"{one}, transformers", f"{one}, by the chunk"]) for one in models]
    ratio = times.ratio(WHOLE, fastest)
    return _table(times, sizes, name, fastest), Measured("evaluation", ratio, name)


@torch.no_grad()
def _transformers_forward(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> object:
    return model(**batch, use_cache=False).loss


def _chunked_forward(model: LlamaForCausalLM) -> Callable[[dict[str, Tensor]], object]:
    head = head_of(model)

    @torch.no_grad()
    def run(batch: dict[str, Tensor]) -> object:
        states, labels = forward(model, head, batch)
        return score_tokens(states, head, labels)

    return run


def _table(times: Times, sizes: Shape, name: str, fastest: list[str]) -> Table:
    table = Table(
        f"Evaluation of a teacher and three models, {name}, V = {sizes.vocabulary}, H = {sizes.width}, "
        f"{sizes.rows} × {sizes.length} tokens",
        ("what", "over the fastest forward of each: median (best)", "ms"),
        f"Teacher of {sizes.teacher_layers} layers, three models of {sizes.student_layers}: loss, KL to the teacher "
        "and agreement of every token. Loading and reading the text are left out.",
    )
    table.add(WHOLE, str(times.ratio(WHOLE, fastest)), f"{times.median(WHOLE) * 1e3:.0f}")
    for one in fastest:
        table.add(f"forward: {one}", "", f"{times.median(one) * 1e3:.0f}")
    return table
