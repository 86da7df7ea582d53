import json

import pytest
import torch
from transformers import AutoTokenizer

from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.targets import TargetStore
from potstill.teachers.prepared import PreparedTeacher
from tiny import VOCABULARY, bert, llama, padded, save_model, tokenizer, toy_recipe


def test_a_folder_stays_where_it_is(run, recipe):
    made = run.path("teachers") / "smollm2"
    assert [file.name for file in made.iterdir()] == ["teacher.json"]
    teacher = PreparedTeacher.load(made)
    assert teacher.source == recipe.teachers["smollm2"].model
    ids = torch.arange(2, 12)[None]
    assert torch.equal(teacher.model(torch.float32)(ids).logits, llama(0)(ids).logits)
    assert teacher.tokenizer().get_vocab() == tokenizer().get_vocab()
    assert teacher.parameters() == llama(0).num_parameters()


def test_a_prepared_teacher_is_frozen(run):
    model = PreparedTeacher.load(run.path("teachers") / "smollm2").model()
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


def test_teachers_must_speak_the_same_tokens(tmp_path):
    recipe = toy_recipe(tmp_path)
    other = save_model(padded(llama(1), VOCABULARY + 20), tmp_path / "other")
    tokens = AutoTokenizer.from_pretrained(other)
    tokens.add_tokens(["<another>"])
    tokens.save_pretrained(other)
    both = json.dumps({"smollm2": {"model": recipe.teachers["smollm2"].model}, "other": {"model": str(other)}})
    with pytest.raises(UserError) as told:
        run_recipe(toy_recipe(tmp_path, f"teachers={both}"), Run(tmp_path / "run"), until="teachers")
    assert str(told.value).startswith("teachers.smollm2 and teachers.other have different tokenizers")
    assert str(told.value).endswith(
        "; use models of one tokenizer, or the loss `alm` with a `tokenizer` of the student's own and a student that "
        "is not made from a teacher"
    )
    student = json.dumps({"start": "scratch", "config": {"model_type": "llama", "num_hidden_layers": 2}})
    losses = json.dumps([{"kind": "alm"}, {"kind": "cross_entropy"}])
    across = (f"student={student}", f"distil.losses={losses}", "tokenizer={vocab_size: 400}", "capture=null")
    run_recipe(toy_recipe(tmp_path, f"teachers={both}", *across), Run(tmp_path / "across"), until="teachers")


@pytest.mark.parametrize(
    ("model", "fields", "sentence"),
    [
        (bert, {}, "`teachers.smollm2.model` is not a causal language model: the BertLMHeadModel looks ahead"),
        (llama, {"num_hidden_layers": 8}, "its files lack 36 weights (model.layers.4.input_layernorm.weight, "),
        (llama, {"is_encoder_decoder": True}, "which is an encoder-decoder"),
    ],
    ids=["looks ahead", "half the layers", "encoder and decoder"],
)
def test_a_teacher_that_is_not_what_it_says_is_refused_by_the_first_stage(tmp_path, model, fields, sentence):
    folder = save_model(model(), tmp_path / "bad")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    teachers = json.dumps({"smollm2": {"model": str(folder)}})
    with pytest.raises(UserError) as told:
        run_recipe(toy_recipe(tmp_path, f"teachers={teachers}", "student.layers=1"), Run(tmp_path / "run"))
    assert sentence in str(told.value)
    assert not (tmp_path / "run" / "corpus").exists()


def test_what_a_run_learned_from_a_quantised_teacher_is_its_own(tmp_path):
    pytest.importorskip("torchao")
    quantised = "teachers.smollm2.quantization={quant_method: torchao, quant_type: Int8WeightOnlyConfig}"
    plain, run = Run(tmp_path / "plain"), Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "capture={}"), plain, until="capture")
    run_recipe(toy_recipe(tmp_path, "capture={}", quantised), run, until="capture")
    stores = [TargetStore(each.path("capture") / "smollm2", expect=None) for each in (run, plain)]
    mine, theirs = (store.header.provenance.revision for store in stores)
    assert mine == PreparedTeacher.load(run.path("teachers") / "smollm2").fingerprint
    assert mine != theirs
