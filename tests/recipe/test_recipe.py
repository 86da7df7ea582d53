"""The whole schema: every key has its help, and sections that contradict each other are refused."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from pydantic import ValidationError

import minimal
from potstill.errors import UserError
from potstill.recipe import Recipe, load_recipe
from potstill.recipe.training_fields import REFUSED

SCHEMA = Recipe.model_json_schema(by_alias=True)
PARTS = {"Recipe": SCHEMA, **SCHEMA["$defs"]}


OF_OTHER_LIBRARIES = {"TrainingFields", "AcceleratorFields"}
"""Their keys are documented where they come from."""


def references(node):
    if isinstance(node, dict):
        yield from [node["$ref"]] if "$ref" in node else []
        yield from (found for value in node.values() for found in references(value))
    elif isinstance(node, list):
        yield from (found for value in node for found in references(value))


@pytest.mark.parametrize("part", PARTS)
def test_every_section_and_every_key_has_its_help(part):
    assert PARTS[part].get("description"), f"{part} has no docstring"
    named = {} if part in OF_OTHER_LIBRARIES else PARTS[part]["properties"]
    missing = [key for key, field in named.items() if not field.get("description")]
    assert not missing, f"no docstring under {missing} of {part}"


@pytest.mark.parametrize("part", PARTS)
def test_editors_mark_unknown_keys(part):
    assert PARTS[part]["additionalProperties"] is False


def test_the_schema_defines_every_section_that_it_uses():
    named = set(references(SCHEMA))
    assert named == {f"#/$defs/{name}" for name in SCHEMA["$defs"]}
    assert set(SCHEMA["required"]) == {"about", "corpus", "student", "distil"}


@pytest.mark.parametrize("key", REFUSED)
@pytest.mark.parametrize("section", ["distil", "control"])
def test_a_field_that_potstill_sets_is_refused_with_the_reason(tmp_path, section, key):
    with pytest.raises(UserError) as error:
        minimal.recipe(tmp_path, f"{section}.training.{key}=1")
    assert f"`{section}.training.{key}`: must not be set, because {REFUSED[key]}; remove it" in str(error.value)


def test_the_refused_training_fields_exist_and_include_all_that_potstill_sets(monkeypatch):
    import transformers

    from potstill.training.arguments import DEFAULTS, loader_defaults, training_arguments

    defaults = DEFAULTS | loader_defaults()
    known = {field.name for field in fields(transformers.TrainingArguments)}
    assert set(REFUSED) <= known
    assert not set(defaults) & set(REFUSED), "a recipe may change a default"
    # A recipe must not set a field that potstill then overwrites.
    given = {}
    monkeypatch.setattr(
        "potstill.training.arguments.TrainingArguments", recorder(transformers.TrainingArguments, given)
    )
    training_arguments({}, "distil.training", Path("x"), 0)
    assert set(given) - set(defaults) <= set(REFUSED)


def recorder(arguments, given):
    @dataclass
    class Recorder(arguments):
        def __init__(self, **fields):
            given.update(fields)

    return Recorder


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("student.from=u", "`student.from`: 'u' is not one of the teachers: t"),
        ("teachers={}", "there is no teacher; name one in `teachers`, or one to train in `pretrain`"),
        ("pretrain={t: {config: {model_type: llama}}}", "`pretrain.t`: `teachers` has that name already"),
        ("distil.keep=best", "`distil.keep: best` needs `corpus.validation`, which is missing"),
        ("corpus.random_offset=true", "`corpus.random_offset` makes new samples each epoch, but `capture` has"),
        (
            "capture.keep=sample;distil.losses.0.kind=jsd",
            "`distil.losses`: jsd needs the whole distribution of a teacher",
        ),
        (
            "teachers.u={model: x};distil.mix=logits",
            "`distil.mix: logits` needs each teacher's whole distribution, but `c",
        ),
        ("teachers.u={model: x};distil.losses.0.kind=jsd", "jsd needs the whole distribution of several teachers, but"),
        ("seeds=[1, 1]", "`seeds`: a seed is listed twice"),
        ("distil.losses=[{kind: cross_entropy}]", "`distil.losses`: no loss with a weight above 0 uses a teacher"),
        ("student={start: copy, from: u}", "`student.from`: 'u' is not one of the teachers: t"),
        ("student.adapter={task_type: x}", "`student.adapter.task_type`: is set by potstill, because every student"),
        ("student.adapter={merge: true}", "`student.adapter.merge`: is a key of `student`; move it out of `adapter`"),
        ("student.adapter={init_lora_weights: eva}", "`student.adapter.init_lora_weights`: 'eva' needs a preparation"),
        ("student.quantization={load_in_4bit: true}", "`student.quantization`: needs `adapter`, because weights of"),
        ("student.merge=true", "`student.merge`: needs `adapter`, which is merged"),
        (
            "student.adapter={alora_invocation_tokens: [5]};student.merge=true",
            "`student.merge`: is impossible with `alora_invocation_tokens`",
        ),
        (
            "student.quantization={bits: 4}",
            "`student.quantization.load_in_4bit`: set either `load_in_4bit` or `load_in_8bit` to true",
        ),
        (
            "student.quantization={quant_method: gptq, load_in_4bit: true}",
            "`student.quantization.quant_method`: must be bitsandbytes",
        ),
        (
            "student={start: scratch, config: {model_type: llama}, adapter: {}}",
            "`student.adapter`: needs a trained start",
        ),
        ("student={start: scratch, config: {}}", "`student.config.model_type`: is missing; name an architecture"),
    ],
)
def test_contradicting_keys_are_refused(tmp_path, override, sentence):
    with pytest.raises(UserError) as error:
        minimal.recipe(tmp_path, *override.split(";"))
    assert sentence in str(error.value)


HIDDEN = "distil.losses=[{kind: hidden_match%s}]"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([HIDDEN % ""], "`distil.losses`: hidden_match needs the teacher's layers, but `capture` keeps none of them"),
        (
            ["capture=null", HIDDEN % ", distance: l1"],
            "`distil.losses.0.distance`: must be 'mse' or 'cosine', not 'l1'",
        ),
        (["capture=null", HIDDEN % ", layers: []"], "`distil.losses.0.layers`: is empty; give at least one"),
        (["capture=null", HIDDEN % ", layers: [[0, -1]]"], "`distil.losses.0.layers.0.1`: must be at least 0, not -1"),
        (
            ["capture=null", HIDDEN % ", temperature: 2"],
            "`distil.losses.0.temperature`: unknown key; the keys here are weight, kind, distance, layers",
        ),
    ],
)
def test_an_impossible_hidden_match_is_refused(tmp_path, overrides, sentence):
    with pytest.raises(UserError) as error:
        minimal.recipe(tmp_path, *overrides)
    assert sentence in str(error.value)


LLAMA_CPP = "teachers.t={model: teacher, gguf: x.gguf, engine: llama_cpp%s}"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["teachers.t.engine=llama_cpp"], "`teachers.t.engine`: llama_cpp runs only GGUF files; name one as `gguf`"),
        (["teachers.t.threads=2"], "`teachers.t.threads`: is for `engine: llama_cpp`"),
        (["teachers.t.quantization={}"], "`teachers.t.quantization`: "),
        (["teachers.t.device_map=autp"], "`teachers.t.device_map"),
        (
            [LLAMA_CPP % ", quantization: {quant_method: x}"],
            "`teachers.t.quantization`: is for `engine: transformers` and does not change a GGUF file in "
            "llama.cpp; remove it",
        ),
        ([LLAMA_CPP % ", device_map: auto"], "`teachers.t.device_map`: is for `engine: transformers`"),
        ([LLAMA_CPP % ", dtype: float32"], "`teachers.t.dtype`: is for `engine: transformers`"),
        ([LLAMA_CPP % ", threads: 0"], "`teachers.t.threads`: must be at least 1, not 0"),
        (
            [LLAMA_CPP % "", "capture.keep=hidden"],
            "`capture.keep: hidden` needs the teacher's hidden states, but `teachers.t.engine: llama_cpp` gives only l",
        ),
        ([LLAMA_CPP % "", "capture=null", HIDDEN % ""], "`distil.losses` needs the teacher's hidden states, but `tea"),
    ],
)
def test_settings_that_an_engine_does_not_support_are_refused(tmp_path, overrides, sentence):
    with pytest.raises(UserError) as error:
        minimal.recipe(tmp_path, *overrides)
    assert sentence in str(error.value)


def test_a_teacher_may_be_quantised_spread_or_run_by_llama_cpp(tmp_path):
    assert minimal.recipe(tmp_path, LLAMA_CPP % ", threads: 2").teachers["t"].threads == 2
    spread = "teachers.t={model: x, device_map: {model: 0, lm_head: cpu}, quantization: {quant_method: fp8}}"
    assert minimal.recipe(tmp_path, spread).teachers["t"].device_map == {"model": 0, "lm_head": "cpu"}


def test_hidden_match_uses_a_teacher_and_has_no_temperature(tmp_path):
    recipe = minimal.recipe(tmp_path, "capture=null", HIDDEN % ", layers: [[0, 3]]")
    assert recipe.temperatures_of(None) == []
    assert recipe.distil.losses[0].layers == [[0, 3]]
    assert minimal.recipe(tmp_path, "distil.losses.0.temperature=3").temperatures_of(None) == [3.0]


def test_a_key_that_is_left_out_has_its_default(tmp_path):
    recipe = minimal.recipe(tmp_path, "capture=null")
    assert recipe.capture is None
    assert recipe.control is not None
    assert recipe.seeds == [0]
    assert recipe.evaluate.confidence == 0.95


def test_a_loaded_recipe_is_immutable(tmp_path):
    with pytest.raises(ValidationError, match="frozen"):
        minimal.recipe(tmp_path).corpus.held_out = 0.5


@pytest.mark.parametrize(
    ("source", "kind"),
    [("{path: x}", "PathSource"), ("{package: x, file: y}", "PackageSource"), ("{dataset: x}", "HubSource")],
)
def test_the_keys_of_a_source_decide_its_kind(tmp_path, source, kind):
    assert type(minimal.recipe(tmp_path, f"corpus.sources=[{source}]").corpus.sources[0]).__name__ == kind


@pytest.mark.parametrize(
    ("capture", "name"),
    [
        ("{keep: hidden, k: 8}", "k"),
        ("{keep: sample, bits: 16}", "bits"),
        ("{keep: top_k, samples: 8}", "samples"),
        ("{keep: spans, k: 8}", "k"),
        ("{keep: hidden, store: elsewhere}", "store"),
    ],
)
def test_a_capture_key_without_effect_is_refused(capture, name):
    with pytest.raises(UserError, match=rf"`{name}` has no effect"):
        load_recipe("quickstart", [f"capture={capture}"])
    assert load_recipe("quickstart", ["capture={keep: hybrid, k: 8, samples: 9, bits: 16}"]).capture.k == 8


@pytest.mark.parametrize("kind", ["jsd", "policy_gradient"])
def test_cross_entropy_may_stand_beside_a_divergence_of_written_samples(tmp_path, kind):
    written = f"distil.on_policy={{share: 0.5, beginning: 4, losses: [{{kind: {kind}}}]}}"
    settings = ["distil.losses=[{kind: cross_entropy}]", written]
    assert minimal.recipe(tmp_path, "capture=null", *settings).on_policy_of(None).losses[0].kind == kind
    with pytest.raises(UserError, match="no loss with a weight above 0 uses a teacher"):
        minimal.recipe(tmp_path, "capture={}", *settings)
