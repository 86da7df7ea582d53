"""Fields of other libraries' dataclasses: names and types are checked."""

from dataclasses import dataclass, field

import pytest

from potstill.errors import UserError
from potstill.recipe.foreign_fields import check_fields


@dataclass
class Settings:
    rank: int = 8
    share: float = 0.5
    on: bool = False
    names: list[str] | str | None = None
    computed: int = field(default=0, init=False)


def test_fields_of_their_types_pass():
    check_fields({}, Settings, "a.b")
    check_fields({"share": 1, "on": True}, Settings, "a.b")
    check_fields({"rank": 4, "names": ["q", "v"]}, Settings, "a.b")
    check_fields({"names": None}, Settings, "a.b")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"rnk": 4}, "`a.b.rnk` is no field of Settings; did you mean `rank`?"),
        ({"zzz": 4}, "`a.b.zzz` is no field of Settings; see the documentation of Settings"),
        ({"computed": 4}, "`a.b.computed` is no field of Settings; "),
        ({"rank": "many"}, "`a.b.rank` is 'many': "),
        ({"names": [1]}, "`a.b.names` is [1]: "),
        ({"rank": "4"}, "`a.b.rank` is '4': "),
        ({"rank": True}, "`a.b.rank` is True: "),
        ({"share": float("nan")}, "`a.b.share` is nan: "),
        ({"share": "0.5"}, "`a.b.share` is '0.5': "),
        ({"on": "yes"}, "`a.b.on` is 'yes': "),
        ({"on": 1}, "`a.b.on` is 1: "),
    ],
)
def test_a_wrong_field_is_refused_in_one_sentence(given, sentence):
    with pytest.raises(UserError) as error:
        check_fields(given, Settings, "a.b")
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)
