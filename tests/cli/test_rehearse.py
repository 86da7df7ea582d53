"""`potstill rehearse`: its folder, its exit code, and its sentence."""

import pytest

from potstill.cli import rehearse as module


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_it_passed(call, monkeypatch, passed, code):
    asked = []

    def rehearse(recipe, folder):
        asked.append((recipe.seeds, str(folder)))
        return {"passed": passed}

    monkeypatch.setattr(module, "rehearse", rehearse)
    assert call("rehearse", "distilpythia", "--set", "seeds=[7]")[0] == code
    assert call("rehearse", "distilpythia", "--folder", "elsewhere")[0] == code
    assert asked == [([7], "rehearsals/distilpythia"), ([0], "elsewhere")]


def test_an_unknown_model_is_one_sentence(call):
    code, _, told = call("rehearse", "distilpythia", "--set", "student.model=nobody/has-this")
    assert code == 2
    assert told.startswith(
        "potstill: `student.model`: the configuration of nobody/has-this is not known here; fetch it"
    )
    assert told.count("\n") == 1
