"""`distributed:` decides how ranks train together, and refuses what cannot be split before anything is spent."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.recipe.distributed import is_sharded, training_fields

FSDP2, ONLINE = "distributed.strategy=fsdp2", "capture=null"
GGUF = "teachers.t={package: p, gguf: f.gguf, engine: llama_cpp}"
PRETRAINED = "pretrain.p={config: {model_type: llama}, training: {deepspeed: {}}}"


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ([GGUF, ONLINE], "teachers.t.engine"),
        (["teachers.t.quantization={quant_method: bitsandbytes}", ONLINE], "teachers.t.quantization"),
        (["teachers.t.device_map=auto", ONLINE], "teachers.t.device_map"),
        (["teachers.t.device_map={'': 0}", ONLINE], "teachers.t.device_map"),
        (["teachers.u={model: teacher, device_map: auto}", ONLINE], "teachers.u.device_map"),
        (["student.quantization={load_in_4bit: true}", "student.adapter={r: 2}"], "student.quantization"),
        (["distil.training.deepspeed={}"], "distil.training.deepspeed"),
        (["control.training.deepspeed={}"], "control.training.deepspeed"),
        ([PRETRAINED], "pretrain.p.training.deepspeed"),
    ],
)
def test_what_cannot_be_split_is_refused(tmp_path, overrides, key):
    minimal.recipe(tmp_path, *overrides)
    with pytest.raises(UserError, match=rf"`{key}`") as error:
        minimal.recipe(tmp_path, FSDP2, *overrides)
    assert "`distributed.strategy: fsdp2`" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("teacher", [GGUF, "teachers.t.device_map=auto"])
def test_a_teacher_that_is_captured_need_not_be_split(tmp_path, teacher):
    assert minimal.recipe(tmp_path, FSDP2, teacher).distributed.strategy == "fsdp2"


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp1", "zero3", "true", "2", "null"])
def test_only_these_strategies_are_known(tmp_path, strategy):
    with pytest.raises(UserError, match=r"`distributed\.strategy`"):
        minimal.recipe(tmp_path, f"distributed.strategy={strategy}")


@pytest.mark.parametrize(
    ("ranks", "strategy", "sharded"), [(1, "ddp", False), (2, "ddp", False), (1, "fsdp2", False), (2, "fsdp2", True)]
)
def test_only_several_ranks_are_sharded(tmp_path, monkeypatch, ranks, strategy, sharded):
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    recipe = minimal.recipe(tmp_path, f"distributed.strategy={strategy}")
    assert is_sharded(recipe) is sharded
    fields = training_fields(recipe, recipe.distil.training)
    assert fields.get("fsdp", False) is sharded
    assert {name: fields[name] for name in recipe.distil.training} == recipe.distil.training


def test_settings_for_accelerate_stay_beside_those_of_the_strategy(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = minimal.recipe(tmp_path, FSDP2, "distil.training.accelerator_config={use_seedable_sampler: true}")
    given = training_fields(recipe, recipe.distil.training)["accelerator_config"]
    assert given == {"use_seedable_sampler": True, "gradient_accumulation_kwargs": {"sync_each_batch": True}}
