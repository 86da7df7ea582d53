"""What comes from the hub: which models, how many bytes, in which step, and what the cache has already."""

import json
import shutil

import pytest

import minimal
from potstill.pipeline.graph import all_steps
from potstill.planning.amounts import amounts_of
from potstill.planning.downloads import IN_32_BITS, OF_GGUF, PUBLISHED, QUANTISED, fetched_by
from potstill.planning.jobs import Situation
from potstill.planning.models import models_of
from potstill.planning.ranges import ZERO
from potstill.recipe import load_recipe
from tiny import llama, save_model

COMMIT = "1" * 40
FIELDS = {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 64}
FIELDS |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300}
NAMED = "teachers.t.model=people/tiny"
WEIGHTS = float(sum(one.numel() for one in llama().parameters()))


def facts(**more):
    return "facts.models=" + json.dumps({"people/tiny": FIELDS | more})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models--people--tiny"


def fetched(recipe, *, here=False, stages=None):
    """What is fetched, by the names of the steps."""
    at = Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, None, None), "fp32")
    assert not at.models.missing, at.models.notes
    steps = [step for step in all_steps(recipe) if stages is None or step.stage in stages]
    return {str(step): size for step, size in fetched_by(steps, at, here=here).items() if size.high}


def put_into(cache, folder):
    """A model's files in the hub's cache, as a download leaves them."""
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(COMMIT)
    return shutil.copytree(folder, cache / "snapshots" / COMMIT)


def test_published_models_are_counted_in_16_bits_and_may_have_32():
    found = fetched(load_recipe("gsm8k"))
    both = 405_853_388_800 + 8_030_261_248
    assert sum(found.values(), ZERO) == PUBLISHED * float(both)
    assert PUBLISHED.to_list() == [2.0, 2.0, 4.0]
    assert found["student"].expected >= 2 * 8_030_261_248


def test_a_model_is_fetched_by_the_first_step_that_loads_it(tmp_path):
    recipe = minimal.recipe(tmp_path, NAMED, facts())
    assert fetched(recipe) == {"student": PUBLISHED * WEIGHTS}
    assert fetched(recipe, stages=("capture", "distil")) == {"capture": PUBLISHED * WEIGHTS}


def test_a_repository_is_fetched_once(tmp_path):
    twice = ["student={start: checkpoint, model: people/tiny}", "evaluate.models={other: people/tiny}"]
    recipe = minimal.recipe(tmp_path, NAMED, facts(), *twice)
    assert fetched(recipe) == {"student": PUBLISHED * WEIGHTS}
    assert fetched(recipe, stages=("evaluate",)) == {"evaluate": PUBLISHED * WEIGHTS}


def test_the_start_of_a_student_that_is_built_is_in_the_run_folder(tmp_path):
    save_model(llama(), tmp_path / "teacher")
    given = [f"teachers.t.model={tmp_path / 'teacher'}", "student={start: checkpoint, model: people/tiny}", facts()]
    recipe = minimal.recipe(tmp_path, *given)
    assert fetched(recipe) == {"student": PUBLISHED * WEIGHTS}
    assert fetched(recipe, stages=("distil", "evaluate")) == {}


def test_a_baseline_is_fetched_by_its_evaluation(tmp_path):
    save_model(llama(), tmp_path / "teacher")
    given = [f"teachers.t.model={tmp_path / 'teacher'}", "evaluate.models={other: people/tiny}", facts()]
    assert fetched(minimal.recipe(tmp_path, *given)) == {"evaluate": PUBLISHED * WEIGHTS}


def test_quantised_models_and_gguf_files_have_fewer_bytes(tmp_path):
    quantised = minimal.recipe(tmp_path, NAMED, facts(quantization_config={"quant_method": "gptq", "bits": 4}))
    assert fetched(quantised) == {"student": QUANTISED * WEIGHTS}
    gguf = minimal.recipe(tmp_path, "teachers.t={model: people/tiny, gguf: a.gguf}", facts())
    assert fetched(gguf) == {"teachers": OF_GGUF * WEIGHTS}


def test_what_the_cache_has_is_not_fetched_again(tmp_path, cache):
    recipe = minimal.recipe(tmp_path, NAMED, facts())
    model = save_model(llama(), tmp_path / "teacher")
    assert fetched(recipe, here=True) == {"student": PUBLISHED * WEIGHTS}
    there = put_into(cache, model)
    assert fetched(recipe, here=True) == {}
    assert fetched(recipe) == {"student": IN_32_BITS * WEIGHTS}, "another machine has another cache"
    (there / "model.safetensors").unlink()
    assert fetched(recipe, here=True) == {"student": IN_32_BITS * WEIGHTS}, "a configuration alone, of 32 bits"


def test_the_rest_of_a_download_that_was_stopped_is_fetched(tmp_path, cache):
    llama().save_pretrained(tmp_path / "teacher", max_shard_size="20KB")
    there = put_into(cache, tmp_path / "teacher")
    recipe = minimal.recipe(tmp_path, NAMED, facts())
    first, *others = sorted(there.glob("model-*.safetensors"))
    assert others
    assert fetched(recipe, here=True) == {}
    for file in others:
        file.unlink()
    left = fetched(recipe, here=True)["student"]
    assert left.high == 4 * WEIGHTS - first.stat().st_size


def test_parts_of_a_gguf_file_are_counted(tmp_path, cache):
    recipe = minimal.recipe(tmp_path, "teachers.t={model: people/tiny, gguf: a-00001-of-00002.gguf}", facts())
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a-00001-of-00002.gguf").write_bytes(b"GGUF")
    there = put_into(cache, tmp_path / "files")
    assert fetched(recipe, here=True)["teachers"].high == OF_GGUF.high * WEIGHTS - 4
    (there / "a-00002-of-00002.gguf").write_bytes(b"GGUF")
    assert fetched(recipe, here=True) == {}


def test_a_name_that_is_no_repository_is_nothing_in_the_cache(tmp_path, cache):
    odd = "facts.models=" + json.dumps({"no/such/name": FIELDS})
    recipe = minimal.recipe(tmp_path, "teachers.t.model=no/such/name", odd)
    assert fetched(recipe, here=True) == {"student": PUBLISHED * WEIGHTS}
