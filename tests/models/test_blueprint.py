"""A configuration in a recipe is proven before anything is spent, and no weight of it is made."""

import pytest

from potstill.errors import UserError
from potstill.models.blueprint import check_blueprint
from tiny import VOCABULARY, llama

CONFIG = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
CONFIG |= {"num_attention_heads": 4, "max_position_embeddings": 16}


def test_the_parameters_are_counted():
    config = llama().config.to_diff_dict() | {"model_type": "llama"}
    fields = {name: value for name, value in config.items() if name in CONFIG or name.startswith(("num_", "tie_"))}
    counted = check_blueprint(fields, "student.config", VOCABULARY, length=16)
    assert counted == sum(weight.numel() for weight in llama().parameters())
    assert check_blueprint(CONFIG, "c", None, 16) < check_blueprint(CONFIG, "c", 300, 16), "a lower bound"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", 9 * 10**18),
        ("hidden_size", "64"),
        ("hidden_size", True),
        ("hidden_size", 0),
        ("hidden_size", -4),
        ("hidden_size", 6.5),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", -1),
        ("num_experts", 10**9),
        ("num_attention_heads", 0),
        ("num_attention_heads", 3),
        ("num_key_value_heads", 3),
        ("attention_dropout", 7),
        ("attention_dropout", -0.5),
        ("vocab_size", 0),
        ("hidden_act", "foo"),
        ("hiden_size", 64),
        ("model_type", "llamma"),
        ("model_type", "vit"),
        ("max_position_embeddings", 8),
    ],
)
def test_what_makes_no_model_is_a_sentence(field, value):
    with pytest.raises(UserError, match=r"`(student\.config|corpus\.sequence_length)") as error:
        check_blueprint(CONFIG | {field: value}, "student.config", None, length=16)
    assert "\n" not in str(error.value)
    assert not str(error.value).endswith(":")


def test_a_huge_model_costs_nothing_here():
    assert check_blueprint(CONFIG | {"intermediate_size": 10**10}, "student.config", None, 16) > 10**12
