import pytest

from potstill.errors import UserError
from potstill.models.shared_vocabulary import compared_vocabulary, shared_vocabulary


class Tokens:
    def __init__(self, name: str, *tokens: str) -> None:
        self.name_or_path = name
        self._vocab = {token: id for id, token in enumerate(tokens)}

    def get_vocab(self) -> dict[str, int]:
        return self._vocab


def test_equal_vocabularies_share_everything() -> None:
    assert shared_vocabulary(Tokens("a", "x", "y"), Tokens("b", "x", "y")) == 2


def test_tokens_that_come_after_all_shared_ones_are_left_out() -> None:
    assert shared_vocabulary(Tokens("a", "x", "y"), Tokens("b", "x", "y", "<think>")) == 2
    assert shared_vocabulary(Tokens("a", "x", "y", "<think>"), Tokens("b", "x", "y")) == 2


def test_other_vocabularies_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'small'.*'large'.*id 1 is 'y' in the one and 'z'") as told:
        shared_vocabulary(Tokens("small", "x", "y"), Tokens("large", "x", "z"))
    assert str(told.value).endswith('; use models of one tokenizer, or `Loss("alm")` as the only loss from a teacher')
    with pytest.raises(UserError, match="share no token, because one of them has none"):
        shared_vocabulary(Tokens("small"), Tokens("large", "x"))


def test_a_hole_is_no_token() -> None:
    holed = Tokens("holed", "x", "y", "z")
    del holed.get_vocab()["y"]
    with pytest.raises(UserError, match="id 1 is no token in the one and 'y'"):
        shared_vocabulary(holed, Tokens("full", "x", "y", "z"))


def test_heads_of_one_size_need_no_proof_and_other_heads_do() -> None:
    tokens = Tokens("a", "x", "y")
    assert compared_vocabulary(4, None, [(4, None)]) is None
    assert compared_vocabulary(2, tokens, [(2, tokens)]) is None, "nothing is padded"
    assert compared_vocabulary(4, tokens, [(4, tokens)]) == 2
    assert compared_vocabulary(4, tokens, [(4, None), (3, Tokens("b", "x"))]) == 1
    assert compared_vocabulary(4, tokens, [(1, tokens)]) == 1, "no head answers for more than its rows"
    told = r"3 ids and the student one of 4; give `teacher_tokenizer`.* or, of different tokenizers, by `Loss\(.alm.\)`"
    with pytest.raises(UserError, match=told):
        compared_vocabulary(4, tokens, [(3, None)])
    with pytest.raises(UserError, match="give `processing_class`"):
        compared_vocabulary(4, None, [(3, tokens)])
