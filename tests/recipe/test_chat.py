"""The settings of a chat."""

import pytest

from potstill.errors import UserError
from potstill.recipe.chat import Chat
from potstill.recipe.load import section_of


def test_settings_are_given_by_overrides_alone():
    assert section_of(Chat, [], "--set") == Chat()
    assert section_of(Chat, ["temperature=0.7", "system=Be brief."], "--set") == Chat(
        temperature=0.7, system="Be brief."
    )


@pytest.mark.parametrize("given", ["top_p=0", "top_k=0", "seed=-1", "max_new_tokens=0", "system=[1]"])
def test_wrong_values_name_their_key(given):
    with pytest.raises(UserError, match=f"^--set: `{given.partition('=')[0]}`: "):
        section_of(Chat, [given], "--set")
