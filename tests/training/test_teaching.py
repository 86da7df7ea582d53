"""Teachers that read a batch together: their shares, and what each is asked to read."""

import pytest

from potstill.errors import UserError
from potstill.training.named_models import names_of_teachers, teachers_in_order
from potstill.training.taught_rows import GROUPS, TaughtGroup, TaughtGroups
from potstill.training.teaching import TaughtTokens, Teaching, shares_of_weights


def test_the_teachers_of_some_rows_share_them_by_their_own_weights():
    teaching = Teaching(["a", "b", "c"], shares_of_weights([1, 3, 4], 3), "probabilities", ("a", "b", "c"))
    assert teaching.shares_of((0, 1)) == (0.25, 0.75)
    assert teaching.shares_of((2,)) == (1.0,)
    assert teaching.shares_of((0, 1, 2)) == teaching.shares == (0.125, 0.375, 0.5)


def test_the_tokens_of_a_teacher_are_those_of_its_groups():
    groups = TaughtGroups((TaughtGroup((), 2), TaughtGroup((0,), 3), TaughtGroup((0, 1), 4)))
    teaching = Teaching(["a", "b"], (0.25, 0.75), "probabilities", ("a", "b"))
    of_first, of_second = teaching.taught({GROUPS: groups})
    assert of_first == [TaughtTokens(slice(2, 5), 1.0), TaughtTokens(slice(5, 9), 0.25)]
    assert of_second == [TaughtTokens(slice(5, 9), 0.75)]
    assert groups.untaught == 2
    assert groups.tokens_of(0) == 7


def test_teachers_of_written_samples_have_the_same_names():
    assert names_of_teachers(["a"]) is None
    assert teachers_in_order({"b": 1, "a": 2}, ("a", "b")) == [2, 1]
    for names in (("a",), ("a", "c"), None):
        with pytest.raises(UserError, match="`rollout_teacher` must have the names of `teacher`"):
            teachers_in_order({"b": 1, "a": 2}, names)
