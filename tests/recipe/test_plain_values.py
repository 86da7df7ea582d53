"""A recipe holds text, numbers, lists and sections, and not too many of them; whatever YAML can hold besides."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.recipe import load_recipe

DEEP = 20_000
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def refusal(folder, text):
    file = minimal.write(folder, text)
    with pytest.raises(UserError) as error:
        load_recipe(str(file))
    sentence = str(error.value)
    assert sentence.startswith(f"recipe {file}")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            minimal.TEXT + "strategies: &a {x: *a}\n",
            "`strategies.x.x` is nested more than 64 deep; does an alias",
        ),
        (minimal.TEXT + "seeds: &a [*a, *a]\n", "is nested more than 64 deep"),
        (minimal.TEXT + "seeds: " + "[" * DEEP + "]" * DEEP, "is nested too deep, or is too large, to be read"),
        (minimal.TEXT + "strategies: " + "{a: " * 100 + "}" * 100, "is nested more than 64 deep"),
        (LAUGHS, "has more than 100,000 values"),
        (
            "about: " + "x" * 300_000,
            "has 300,007 bytes, and a recipe may have 262,144; put data into",
        ),
        (minimal.TEXT + "seeds: [" + "9" * 5000 + "]", "not valid YAML: Exceeds the limit"),
        (minimal.TEXT + "seeds: [" + "9" * 30 + "]", "`seeds.0`: must be less than 9,223,372,036,854,775,808"),
        (minimal.TEXT + "search: 2001-99-99", "not valid YAML: month must be in 1..12"),
        (minimal.TEXT + "search: 2001-01-01", "`search`: must be text, a number, a list or a section, not datetime"),
        (minimal.TEXT + "strategies: !!binary aGVsbG8=", "`strategies`: must be text, a number, a list or a section"),
        (minimal.TEXT + "strategies: !!set {a, b}", "`strategies`: must be text, a number, a list or a section"),
        (minimal.TEXT + "strategies: !!int x", "not valid YAML: invalid literal"),
        (minimal.TEXT + "? \n: 3", "the key None must be text; write it in quotes"),
        (minimal.TEXT + "? [a]\n: 3", "the key ('a',) must be text; write it in quotes"),
        (minimal.TEXT + "? {a: b}\n: 3", "not valid YAML: found unhashable key"),
        (minimal.TEXT.replace("a test", r'"a\0b"'), "`about`: has a character NUL"),
        (minimal.TEXT.replace("text.txt", r'"a\0b"'), "`corpus.sources.0.path`: has a character NUL"),
        (minimal.TEXT + r'experiments: {? "a\0b" : {}}', "`experiments`: the key 'a\\x00b' has a character NUL"),
        (minimal.TEXT.replace("a test", r'"\ud800"'), "`about`: has half a character"),
        (minimal.TEXT.replace("max_steps: 1", "lr_scheduler_kwargs: {x: .nan}"), "must be a finite number, not nan"),
        (
            minimal.TEXT.replace("max_steps: 1", "lr_scheduler_kwargs: {x: -.inf}"),
            "must be a finite number, not -inf",
        ),
        (bytes(range(256)), "is not UTF-8 (byte 128); convert it first"),
        (minimal.TEXT.encode("utf-16"), "is not UTF-8"),
    ],
)
def test_what_no_recipe_holds_is_refused_in_a_sentence(tmp_path, text, said):
    assert said in refusal(tmp_path, text)


def test_aliases_may_share_values(tmp_path):
    text = minimal.TEXT.replace("{max_steps: 1}", "&t {max_steps: 1}") + "control: {training: *t}\n"
    assert load_recipe(str(minimal.write(tmp_path, text))).control.training == {"max_steps": 1}
