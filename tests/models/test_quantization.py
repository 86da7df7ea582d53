"""Quantisations: which are refused, and what transformers is given for the others."""

import importlib.util

import pytest
import torch

from potstill.errors import UserError
from potstill.models.quantization import quantization_config

NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
TORCHAO = {"quant_method": "torchao", "quant_type": "Int8WeightOnlyConfig"}
SIX_BITS = {"IntxWeightOnlyConfig": {"weight_dtype": "int6", "granularity": {"PerGroup": 32}}}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"load_in_4bit": True}, "`q.quant_method`: transformers has no method None; there are "),
        (
            {"quant_method": "bitsnbytes"},
            "`q.quant_method`: transformers has no method 'bitsnbytes'; did you mean `bits",
        ),
        (NF4 | {"bnb_4bit_quant_typ": 1}, "`q.bnb_4bit_quant_typ`: BitsAndBytesConfig has no such field; did you mean"),
        ({"quant_method": "bitsandbytes"}, "`q`: bitsandbytes needs one of `load_in_4bit: true` and `load_in_8bit: t"),
        (NF4 | {"load_in_8bit": True}, "`q`: bitsandbytes needs one of "),
        (NF4 | {"bnb_4bit_compute_dtype": "bfloat61"}, "`q`: transformers refuses it: "),
        ({"quant_method": "awq"}, "`q.quant_method`: awq cannot quantise a model while it is loaded"),
        ({"quant_method": "torchao"}, "`q`: transformers refuses it: "),
        (TORCHAO | {"quant_type": "Int8WeightOnly"}, "`q.quant_type`: torchao has no 'Int8WeightOnly'; did you mean"),
        (
            TORCHAO | {"quant_type": {"Int4WeightOnlyConfig": {"group": 64}}},
            "`q.quant_type.Int4WeightOnlyConfig.group`: Int4WeightOnlyConfig has no such field; did you mean",
        ),
        (TORCHAO | {"quant_type": 8}, "`q.quant_type` must be a name, such as "),
        (TORCHAO | {"quant_type": {"Int8WeightOnlyConfig": 8}}, "`q.quant_type.Int8WeightOnlyConfig` must be fields "),
        (
            TORCHAO | {"quant_type": {"IntxWeightOnlyConfig": {"granularity": {"PerGrup": 32}}}},
            "`q.quant_type.IntxWeightOnlyConfig.granularity`: torchao has no 'PerGrup'; did you mean `PerGroup`?",
        ),
        (TORCHAO | {"quant_type": {"IntxWeightOnlyConfig": {"weight_dtype": "int66"}}}, "`q`: transformers refuses it"),
        (TORCHAO | {"quant_type": {"IntxWeightOnlyConfig": {"weight_dtype": "float"}}}, "`q`: transformers refuses it"),
    ],
)
def test_a_quantisation_that_there_is_not_is_refused(given, sentence):
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("torchao")
    with pytest.raises(UserError) as told:
        quantization_config(given, "q")
    assert str(told.value).startswith(sentence)


@pytest.mark.parametrize("given", [NF4, TORCHAO], ids=["bitsandbytes", "torchao"])
def test_a_package_that_is_missing_is_named_with_its_extra(given, monkeypatch):
    here = importlib.util.find_spec
    method = given["quant_method"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *at: None if name == method else here(name, *at))
    with pytest.raises(UserError, match=rf"`q` needs {method}, .* pip install 'potstill\[quantized\]'"):
        quantization_config(given, "q")


def test_torchao_takes_the_fields_of_a_configuration():
    torchao = pytest.importorskip("torchao.quantization")
    given = TORCHAO | {"quant_type": {"Int4WeightOnlyConfig": {"group_size": 64}}}
    assert quantization_config(given, "q").quant_type.group_size == 64
    found = quantization_config(TORCHAO | {"quant_type": SIX_BITS}, "q").quant_type
    assert found == torchao.IntxWeightOnlyConfig(weight_dtype=torch.int6, granularity=torchao.PerGroup(32))
    given = TORCHAO | {"quant_type": {"IntxWeightOnlyConfig": {"granularity": {"PerAxis": 0}}}}
    assert quantization_config(given, "q").quant_type.granularity == torchao.PerAxis(0)
