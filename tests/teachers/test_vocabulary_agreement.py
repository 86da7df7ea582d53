import copy

import pytest

from potstill.errors import UserError
from potstill.losses.loss import Loss
from potstill.targets import make_codec
from potstill.teachers.live import LiveTeacher
from potstill.teachers.vocabulary_agreement import agreed_vocabulary, head_rows
from tiny import VOCABULARY, llama, padded, tokenizer
from toy_training import captured, samples

LOSSES = [Loss("forward_kl", temperature=2.0)]


def agreed(student, teachers, given=None, ours=None):
    return agreed_vocabulary(student, tokenizer() if ours is None else ours, teachers, given, LOSSES)


def wide(rows, seed=0):
    return padded(llama(seed, layers=1), rows)


def with_more(*tokens):
    other = copy.deepcopy(tokenizer())
    other.add_tokens(list(tokens))
    return other


def test_models_of_one_size_are_compared_whole():
    assert agreed(wide(320), [LiveTeacher(wide(320, 1))]) is None
    assert agreed(llama(layers=1), [LiveTeacher(llama(1, layers=1))], tokenizer()) is None
    assert head_rows(wide(320)) == 320


def test_models_of_two_sizes_are_compared_on_their_tokens():
    assert agreed(wide(320), [LiveTeacher(wide(304))], tokenizer()) == VOCABULARY
    assert agreed(wide(320), [LiveTeacher(wide(304)), LiveTeacher(wide(310))], tokenizer()) == VOCABULARY


def test_the_least_of_all_teachers_counts():
    both = [with_more("<a>", "<b>"), with_more("<a>")]
    assert agreed(wide(320), [LiveTeacher(wide(304)), LiveTeacher(wide(310))], both, with_more("<a>", "<b>")) == 301
    assert agreed(wide(320), [LiveTeacher(wide(304))], [both[0]], both[0]) == 302


def test_a_student_without_a_teacher_is_compared_as_one_of_it():
    assert agreed(wide(320), [], tokenizer()) == VOCABULARY
    assert agreed(wide(320), []) is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, r"304 ids and the student one of 320; give `teacher_tokenizer`"),
        ([], r"`teacher_tokenizer` has 0 tokenizers for 1 teachers"),
    ],
)
def test_two_sizes_without_a_proof_are_refused(given, sentence):
    with pytest.raises(UserError, match=sentence):
        agreed(wide(320), [LiveTeacher(wide(304))], given)
    with pytest.raises(UserError, match="give `processing_class`"):
        agreed_vocabulary(wide(320), None, [LiveTeacher(wide(304))], tokenizer(), LOSSES)


def test_another_family_is_refused_even_at_the_same_size():
    other = tokenizer().train_new_from_iterator(["xyz zyx"] * 9, VOCABULARY)
    with pytest.raises(UserError, match=r"are not one family.*or `Loss\(\"alm\"\)` as the only loss from a teacher$"):
        agreed(llama(layers=1), [LiveTeacher(llama(1, layers=1))], other)


def test_a_store_proves_itself(tmp_path):
    exact = captured(tmp_path / "store", wide(304), samples(2))
    assert agreed(wide(320), [exact]) == VOCABULARY
    assert agreed(llama(layers=1), [exact]) is None
    with pytest.raises(UserError, match=r"captured with tokenizer.* capture spans .* and use `Loss\(\"alm\"\)`$"):
        agreed(wide(320), [exact], ours=with_more("<a>"))


@pytest.mark.parametrize("mode", ["top_k", "sample", "hybrid"])
def test_a_tail_over_more_than_the_shared_ids_is_refused(tmp_path, mode):
    settings = {"temperatures": (2.0,)} if mode == "top_k" else {"temperature": 2.0}
    store = captured(tmp_path, wide(304), samples(2), codec=make_codec(mode, vocabulary=304, **settings))
    with pytest.raises(UserError, match=r"captured over 304 ids, but student and teachers share 300.*vocabulary=300"):
        agreed(wide(320), [store])
    assert agreed(wide(304), [store]) is None, "heads of equal size are compared with their padding"


def test_hidden_states_can_be_cut_later(tmp_path):
    codec = make_codec("hidden", vocabulary=304, hidden_size=32, bits=32)
    assert agreed(wide(320), [captured(tmp_path, wide(304), samples(2), codec=codec)]) == VOCABULARY
