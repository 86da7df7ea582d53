import pytest
from transformers import XLNetConfig

import tiny
from potstill.errors import UserError
from potstill.models.size import check_length, shown, size_of


def test_a_size_is_read_under_the_names_of_any_configuration():
    model = tiny.llama()
    assert size_of(model.config, model.num_parameters()) == {
        "parameters": model.num_parameters(),
        "layers": 4,
        "hidden": 32,
        "heads": 4,
        "key_value_heads": 2,
        "ffn": 64,
        "vocabulary": 300,
    }
    other = size_of(tiny.gpt2().config, 5)
    assert (other["hidden"], other["heads"], other["key_value_heads"], other["ffn"]) == (32, 4, 4, 128)
    assert size_of(tiny.gpt2(n_inner=50).config, 5)["ffn"] == 50


def test_a_figure_that_an_architecture_does_not_have_is_a_dash():
    config = type("Config", (), {"vocab_size": 7})()
    assert size_of(config, 5)["heads"] is None
    assert "–" in shown({"the student": size_of(config, 5)}, {})


@pytest.mark.parametrize("name", ["t", "another"])
def test_a_teachers_row_says_what_share_of_it_the_student_is(name):
    sizes = {"the student": size_of(tiny.llama(layers=1).config, 25), name: size_of(tiny.llama().config, 200)}
    head, student, teacher = shown(sizes, {"the student": 4.25, name: 3.125}).splitlines()
    names = "parameters the student is layers hidden heads key value heads ffn vocabulary loss"
    assert " ".join(head.split()) == names
    assert student.split() == ["the", "student", "25", "1", "32", "4", "2", "64", "300", "4.2500"]
    assert teacher.split() == [name, "200", "12.5%", "of", "it", "4", "32", "4", "2", "64", "300", "3.1250"]


def test_a_sequence_longer_than_the_models_positions_is_refused():
    config = tiny.llama(max_position_embeddings=16).config
    check_length(config, 16, "the student", "corpus.sequence_length")
    with pytest.raises(UserError, match=r"`corpus.sequence_length` is 17, but the student has only 16 positions"):
        check_length(config, 17, "the student", "corpus.sequence_length")
    check_length(type("Config", (), {})(), 10**6, "the student", "corpus.sequence_length")
    check_length(XLNetConfig(), 10**6, "the student", "corpus.sequence_length")
