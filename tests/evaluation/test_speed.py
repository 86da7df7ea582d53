import json
from types import SimpleNamespace

import pytest

from potstill.evaluation import speed
from potstill.metrics.speed import Speed
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.work import Work
from potstill.recipe.step import Step
from tiny import toy_recipe

OF_SPEED = "evaluate.speed=true"


def _speed(run):
    return Speed.from_dict(run.manifest(Step("evaluate"))["summary"]["speed"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    recipe, run = toy_recipe(folder, OF_SPEED), Run(folder / "run")
    run_recipe(recipe, run)
    return recipe, run


def test_teacher_student_and_control_are_measured(finished):
    _, run = finished
    found = _speed(run)
    assert [one.model for one in found.models] == ["teacher", "student", "control"]
    teacher, student, control = found.models
    assert student.parameters < teacher.parameters
    assert student.bytes < teacher.bytes
    assert student.memory < teacher.memory
    assert control.measured_as is student.measured_as is None
    assert control.rates != student.rates, "each was timed itself"
    assert control.memory == pytest.approx(student.memory, rel=0.01)
    assert found.rounds == len(teacher.rates["decode"]) == len(control.rates["decode"])
    saved = json.loads((run.path("evaluate") / "speed.json").read_text())
    assert Speed.from_dict({name: value for name, value in saved.items() if name != "digest"}) == found


def test_times_are_no_outputs(finished):
    _, run = finished
    assert not [name for name in run.manifest(Step("evaluate"))["outputs"] if "speed" in name]


def test_bytes_on_disk_are_those_of_the_weights(finished):
    _, run = finished
    for one, folder in zip(_speed(run).models, ("teachers/smollm2", "distil/seed-0/student"), strict=False):
        pointer = json.loads((run.folder / "teachers" / "smollm2" / "teacher.json").read_text())
        where = pointer["source"] if one.model == "teacher" else str(run.folder / folder)
        assert one.bytes == (run.folder / where / "model.safetensors").stat().st_size


def test_a_measurement_that_is_finished_is_kept(finished, monkeypatch):
    recipe, run = finished
    monkeypatch.setattr(speed, "measure_rounds", None)
    again = speed.measure(Work(recipe, run, Step("evaluate"))).summary["speed"]
    assert Speed.from_dict(again) == _speed(run)


def test_students_of_several_experiments_share_one_measurement_and_the_control_has_its_own(tmp_path):
    recipe = toy_recipe(
        tmp_path, OF_SPEED, "experiments={hot: {losses: [{kind: forward_kl, temperature: 4}]}, cold: {}}"
    )
    run = Run(tmp_path / "run")
    run_recipe(recipe, run)
    found = _speed(run)
    assert [(one.model, one.measured_as) for one in found.models] == [
        ("teacher", None),
        ("student hot", None),
        ("student cold", "student hot"),
        ("control", None),
    ]


def test_without_a_control_the_student_is_measured_alone(finished, monkeypatch):
    recipe, run = finished
    timed = []
    monkeypatch.setattr(speed, "measure_rounds", lambda models: timed.append(list(models)))
    speed._measured(SimpleNamespace(recipe=recipe.model_copy(update={"control": None}), run=run))
    assert timed == [["teacher", "student"]]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("fit_together", lambda *_: False, "do not fit into memory together"),
        ("measure_rounds", lambda *_: None, "would take longer than a minute"),
    ],
)
def test_sizes_are_told_where_speed_cannot_be_measured(finished, monkeypatch, name, value, sentence):
    recipe, run = finished
    monkeypatch.setattr(speed, name, value)
    found = speed._measured(SimpleNamespace(recipe=recipe, run=run))
    assert sentence in found.notes[0]
    assert all(one.parameters and one.bytes and one.rates is None for one in found.models)
    assert found.ratio("student", "decode") is None
    assert Speed.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_an_adapter_is_as_large_as_itself_and_its_start(tmp_path):
    run = SimpleNamespace(path=lambda name: tmp_path / name)
    start, adapter = tmp_path / "student" / "start", tmp_path / "adapter"
    for folder, file, size in ((start, "model.safetensors", 100), (adapter, "adapter_model.safetensors", 10)):
        folder.mkdir(parents=True)
        (folder / file).write_bytes(bytes(size))
    work = SimpleNamespace(run=run)
    assert speed._bytes_of_student(work, start) == 100
    (adapter / "adapter_config.json").write_text("{}")
    assert speed._bytes_of_student(work, adapter) == 110


@pytest.mark.parametrize(
    ("files", "gguf", "expected"),
    [
        ({"model.safetensors": 5, "pytorch_model.bin": 7}, None, 5),
        ({"pytorch_model-1.bin": 7, "pytorch_model-2.bin": 7}, None, 14),
        ({"a.gguf": 3, "b.gguf": 4}, "b.gguf", 4),
        ({"a-00001-of-00002.gguf": 3, "a-00002-of-00002.gguf": 4}, "a-00001-of-00002.gguf", 7),
        ({}, None, None),
    ],
)
def test_the_bytes_of_a_teacher_are_those_of_its_files(tmp_path, files, gguf, expected):
    for name, size in files.items():
        (tmp_path / name).write_bytes(bytes(size))
    teacher = SimpleNamespace(source=str(tmp_path), gguf=gguf, llama_cpp=None, commit=None)
    assert speed.bytes_of_teacher(teacher) == expected
    if gguf is not None:
        teacher = SimpleNamespace(source="", gguf=None, llama_cpp=str(tmp_path / gguf), commit=None)
        assert speed.bytes_of_teacher(teacher) == expected


def test_a_teacher_that_is_nowhere_on_this_machine_has_no_size():
    teacher = SimpleNamespace(source="somebody/something", gguf=None, llama_cpp=None, commit="0" * 40)
    assert speed.bytes_of_teacher(teacher) is None
