"""Speed: the size of teachers, students and control, and how fast they read and write on this machine.

All students of a run have the start's shape, so one of them is measured for all; the control is measured itself. Makes
`speed.json`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from huggingface_hub import try_to_load_from_cache

from potstill.console import say
from potstill.device import device_name
from potstill.evaluation.candidate_models import CandidateModel, Measurement
from potstill.evaluation.document_scores import fit_together
from potstill.files.sealed import read_sealed, write_sealed
from potstill.metrics.speed import ModelSpeed, Speed
from potstill.metrics.speed_rounds import ROUNDS, measure_rounds
from potstill.models.folder import ADAPTER
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.candidates import Candidate, teacher_candidates, trained_candidates
from potstill.recipe.step import Step
from potstill.teachers.gguf import parts_pattern
from potstill.teachers.prepare import WEIGHTS
from potstill.teachers.prepared import PreparedTeacher


def measure(work: Work) -> Measurement:
    """Measure the speed. A measurement that was finished before a stop is kept."""
    file = work.folder / "speed.json"
    saved = read_sealed(file)
    if saved is None:
        saved = _measured(work).to_dict()
        work.folder.mkdir(parents=True, exist_ok=True)
        write_sealed(file, saved)
    # Times go into the manifest, not into the outputs: they differ between two evaluations with equal results.
    return Measurement(summary={"speed": saved})


def _measured(work: Work) -> Speed:
    named = zip(teacher_candidates(work.recipe), artifacts.teachers(work), strict=True)
    teachers = {candidate.label: teacher for candidate, teacher in named if not teacher.is_elsewhere}
    students = [one for one in trained_candidates(work.recipe) if one.seed == work.recipe.seeds[0]]
    made = work.run.manifest(Step("student"))
    assert made is not None, "the student is not made"
    described = [ModelSpeed(name, cast(int, one.parameters()), bytes_of_teacher(one)) for name, one in teachers.items()]
    # The first of each role.
    measured = {student.role: student for student in reversed(students)}
    for student in students:
        size = _bytes_of_student(work, artifacts.trained_folder(work, student))
        like = measured[student.role]
        measured_as = None if student is like else like.label
        described.append(ModelSpeed(student.label, made["summary"]["parameters"], size, measured_as=measured_as))
    if not fit_together(work, {one: [_loadable(work, one)] for one in measured.values()}):
        return _without_rates(described, "The teachers, a student and the control do not fit into memory together.")
    say("  speed: reading and writing, at most a minute")
    models: dict[str, Any] = {name: teacher.model() for name, teacher in teachers.items()}
    models |= {one.label: artifacts.trained_model(work, one) for one in measured.values()}
    rounds = measure_rounds(models)
    if rounds is None:
        return _without_rates(described, "A single round would take longer than a minute on this machine.")
    complete = []
    for model in described:
        name = model.measured_as or model.model
        rates, memory = rounds.rates[name], rounds.memory[name]
        complete.append(replace(model, rates=rates, memory=memory, number_format=_number_format(models[name])))
    notes = [f"Only {rounds.rounds} of {ROUNDS} rounds fitted into a minute."] if rounds.rounds < ROUNDS else []
    notes += [
        f"{teacher.name} runs in llama.cpp: it reads rows one by one, and its memory is not counted."
        for teacher in teachers.values()
        if teacher.llama_cpp is not None
    ]
    sizes = rounds.sizes
    return Speed(
        tuple(complete),
        device_name(),
        rounds.rounds,
        sizes.batch_size,
        sizes.prompt_tokens,
        sizes.new_tokens,
        tuple(notes),
    )


def _loadable(work: Work, candidate: Candidate) -> CandidateModel:
    return CandidateModel(candidate, lambda: artifacts.trained_model(work, candidate))


def _without_rates(described: Sequence[ModelSpeed], why: str) -> Speed:
    return Speed(tuple(described), device_name(), 0, 0, 0, 0, (f"Speed was not measured. {why}",))


def _number_format(model: Any) -> str:
    """The format of a model's weights as it runs: float32, bfloat16, or quantised."""
    weights = next(iter(model.parameters()), None)
    return "quantised" if weights is None or getattr(model, "is_quantized", False) else str(weights.dtype)[6:]


def _bytes_of_student(work: Work, folder: Path) -> int:
    """The bytes of a student's weights on disk; of an adapter, with the start's that it is read on top of."""
    start = work.run.path("student") / "start"
    return _weights(folder) + (_weights(start) if (folder / ADAPTER).is_file() else 0)


def bytes_of_teacher(teacher: PreparedTeacher) -> int | None:
    """The bytes of a teacher's weights on disk; None if they are not found."""
    if teacher.llama_cpp is not None:
        return _weights(Path(teacher.llama_cpp).parent, (parts_pattern(Path(teacher.llama_cpp).name),))
    folder = Path(teacher.source)
    if not folder.is_dir():
        known = teacher.gguf or "config.json"
        found = try_to_load_from_cache(teacher.source, known, revision=teacher.commit)
        if not isinstance(found, str):
            return None
        folder = Path(found).parent
    return _weights(folder, WEIGHTS if teacher.gguf is None else (parts_pattern(teacher.gguf),)) or None


def _weights(folder: Path, patterns: Sequence[str] = WEIGHTS) -> int:
    """The bytes of a folder's weights: of the files of the first pattern that it has."""
    sizes = ([file.stat().st_size for file in folder.glob(pattern)] for pattern in patterns)
    return sum(next((each for each in sizes if each), []))
