"""Loading a recipe: each mistake gives one sentence that names the key; a recipe that is written is read again."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import minimal
from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.recipe import Recipe, load_recipe, read_recipe_text, recipe_text, shipped_recipes
from potstill.recipe.load import saved_recipe


def refusal(folder, *overrides, text=minimal.TEXT):
    """The error message about a recipe, without the file's name."""
    file = minimal.write(folder, text)
    with pytest.raises(UserError) as error:
        load_recipe(str(file), overrides)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.startswith((f"recipe {file}", "--set "))
    return sentence.removeprefix(f"recipe {file}: ")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("abuot=x", "`abuot`: unknown key; did you mean `about`?"),
        ("corpus.seperator=x", "`corpus.seperator`: unknown key; did you mean `separator`?"),
        ("corpus.sources.0.feld=x", "`corpus.sources.0.feld`: unknown key; did you mean `field`?"),
        ("teachers.t.revison=x", "`teachers.t.revison`: unknown key; did you mean `revision`?"),
        ("distil.losses.0.temprature=2", "`distil.losses.0.temprature`: unknown key; did you mean `temperature`?"),
        (
            "student.teacher=t",
            "`student.teacher`: unknown key; the keys here are adapter, quantization, merge, from, rule, by, "
            "importance_samples, start, layers",
        ),
        # A key of another section is never suggested.
        ("control.temperature=1", "`control.temperature`: unknown key; the keys here are training"),
        ("distil.losses.0.beta=.5", "`distil.losses.0.beta`: unknown key; the keys here are weight, kind, temperature"),
    ],
)
def test_an_unknown_key_is_named_with_a_suggestion(tmp_path, override, sentence):
    assert refusal(tmp_path, override) == sentence


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("about=3", "`about`: must be text, not 3"),
        ("about=null", "`about`: must be text, not nothing"),
        ("corpus=null", "`corpus`: must have one of the keys `sources`, `questions` or `conversations`"),
        ("corpus=[1]", "`corpus`: must have one of the keys `sources`, `questions` or `conversations`"),
        ("corpus.sources=a.txt", "`corpus.sources`: must be a list, not 'a.txt'"),
        ("corpus.sources=[]", "`corpus.sources`: is empty; give at least one"),
        (
            "corpus.sources=[a.txt]",
            "`corpus.sources.0`: must have one of the keys `package`, `path`, `data` or `dataset`",
        ),
        ("corpus.held_out=2%", "`corpus.held_out`: must be a number or a section with keys, not '2%'"),
        ("corpus.held_out=1", "`corpus.held_out`: must be less than 1, not 1"),
        ("corpus.sequence_length=8.5", "`corpus.sequence_length`: must be a whole number, not 8.5"),
        ("corpus.sequence_length=1", "`corpus.sequence_length`: must be greater than 1, not 1"),
        ("corpus.layout=pakced", "`corpus.layout`: must be 'packed' or 'padded', not 'pakced'"),
        (
            "teachers.t=gpt2",
            "`teachers.t`: must have one of the keys `server`, `package`, `model`, `llama2c` or `data`",
        ),
        ("tokenizer.vocab_size=1000000000", "`tokenizer.vocab_size`: must be at most 1,048,576, not 1000000000"),
        ("corpus.sequence_length=1e9", "`corpus.sequence_length`: must be at most 1,048,576, not 1000000000"),
        ("distil.losses.0.temperature=1e-300", "`distil.losses.0.temperature`: must be at least 0.001, not 1e-300"),
        ("distil.losses.0.weight=1e300", "`distil.losses.0.weight`: must be at most 1,000,000, not 1e+300"),
        ("teachers.t.weight=.inf", "`teachers.t.weight`: must be a finite number, not inf"),
        (
            "teachers={a b: {model: x}}",
            "`teachers.a b`: may contain only letters, digits, `.`, `_` and `-`, and must begin with a letter or digit",
        ),
        ("student.layers=0", "`student.layers`: must be greater than 0, not 0"),
        ("student.layers=some", "`student.layers`: must be a whole number or a list, not 'some'"),
        ("student.layers=[]", "`student.layers`: is empty; give at least one"),
        ("student.layers=[0, x]", "`student.layers.1`: must be a whole number, not 'x'"),
        ("student.layers=[-1]", "`student.layers.0`: must be at least 0, not -1"),
        (
            "student.start=prune",
            "`student.start`: must be one of 'copy', 'prune_layers', 'prune_width', 'checkpoint', 'scratch', "
            "not 'prune'",
        ),
        ("capture.bits=4", "`capture.bits`: must be 8, 16 or 32, not 4"),
        ("distil.losses=[forward_kl]", "`distil.losses.0`: must be a section with keys, not 'forward_kl'"),
        ("distil.losses.0.weight=0", "`distil.losses.0.weight`: must be greater than 0, not 0"),
        ("distil.training=null", "`distil.training`: must be a section with keys, not nothing"),
        ("seeds=0", "`seeds`: must be a list, not 0"),
        ("seeds=[no]", "`seeds.0`: must be a whole number, not 'no'"),
        ("seeds=[-1]", "`seeds.0`: must be at least 0, not -1"),
    ],
)
def test_a_wrong_value_is_named_with_the_expected_value(tmp_path, override, sentence):
    assert refusal(tmp_path, override) == sentence


@pytest.mark.parametrize("section", ["teachers", "experiments", "strategies", "pretrain", "evaluate.minimal_pairs"])
@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "x.JSONL",
        "..",
        ".",
        "a/b",
        "con",
        "NUL.txt",
        '"a\\nb"',
        "a" * 300,
        '""',
        "a.",
        "-a",
        "ä",
        "1",
    ],
)
def test_a_name_that_is_no_good_for_a_file_is_refused(tmp_path, section, name):
    made = {
        "teachers": "{model: x}",
        "pretrain": "{config: {model_type: llama}}",
        "strategies": "{teacher: {user: x}}",
        "experiments": "{}",
        "evaluate.minimal_pairs": "{path: x}",
    }[section]
    assert f"`{section}." in refusal(tmp_path, f"{section}={{? {name} : {made}}}")


@pytest.mark.parametrize("name", ["t", "qwen2.5", "Qwen2.5-0.5B-Instruct", "a_b", "7b", "json", "console", "a" * 64])
def test_a_name_that_is_good_for_a_file_is_taken(tmp_path, name):
    assert name in minimal.recipe(tmp_path, f"experiments={{? '{name}' : {{}}}}").experiments


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("corpus={sources: [{path: x}]}", "corpus.sequence_length"),
        ("student={}", "student.start"),
        ("student={start: scratch}", "student.config"),
        ("distil.losses=[{weight: 1}]", "distil.losses.0.kind"),
        ("teachers={t: {package: x}}", "teachers.t.gguf"),
    ],
)
def test_a_missing_key_is_named(tmp_path, override, key):
    assert refusal(tmp_path, override) == f"`{key}`: is missing; `potstill schema` shows its values"


def test_the_first_mistake_is_described_and_the_others_are_counted(tmp_path):
    wrong = ("distil.losses=[{kind: forward_kl, tempearture: 1}, {kind: foo}]", "seeds=[x]")
    assert refusal(tmp_path, *wrong).endswith("did you mean `temperature`? (2 more)")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("about: x\nabout: y\n", ', line 2: not valid YAML: found duplicate key "about"'),
        ("about: [\n", ", line 2: not valid YAML: "),
        ("a: b: c\n", ", line 1: not valid YAML: mapping values are not allowed here"),
        ("\t about: x", ", line 1: not valid YAML: found character '\\t'"),
        ("---\na: 1\n---\nb: 2\n", ", line 3: not valid YAML: "),
        ("a: \0", "not valid YAML: unacceptable character #x0000"),
        ("a: !!python/object:os.system x", ", line 1: not valid YAML: could not determine a constructor"),
        ("", "has no sections; `potstill init FILE` writes a recipe to start from"),
        ("- a list\n", "has no sections"),
        (b"about: \xff\n", "is not UTF-8 (byte 7); convert it first"),
    ],
)
def test_a_file_that_is_not_a_recipe_is_refused_with_reason_and_line(tmp_path, text, sentence):
    assert sentence in refusal(tmp_path, text=text)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quikstart", "did you mean 'quickstart'?"),
        ("quickstart.yaml", "did you mean 'quickstart'?"),
        ("nowhere/mine.yaml", "the shipped recipes are arithmetic, babyllama, babyllama-2"),
    ],
)
def test_a_missing_recipe_gives_a_suggestion(tmp_path, monkeypatch, name, hint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no recipe file") as error:
        load_recipe(name)
    assert hint in str(error.value)


def test_a_folder_is_not_a_recipe(tmp_path):
    with pytest.raises(UserError, match="is a folder; name the recipe file in it"):
        load_recipe(str(tmp_path))


def test_a_file_without_read_permission_is_named(tmp_path, monkeypatch):
    file = minimal.write(tmp_path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(file), "read_text", refuse)
    with pytest.raises(UserError, match=r"recipe\.yaml: cannot be read \(permission denied\)"):
        load_recipe(str(file))


def test_a_file_is_preferred_to_a_shipped_recipe_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text(minimal.TEXT)
    assert load_recipe("quickstart").about == "a test"


def test_yaml_is_1_2(tmp_path):
    overrides = ("distil.training.learning_rate=1e-4", "about=no", "corpus.train_tokens=102_400")
    recipe = minimal.recipe(tmp_path, *overrides)
    assert recipe.distil.training["learning_rate"] == 1e-4
    assert recipe.about == "no"
    assert recipe.corpus.train_tokens == 102_400


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path):
    assert load_recipe(str(minimal.write(tmp_path, "\ufeff" + minimal.TEXT))).about == "a test"


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_describes_itself(name):
    recipe = load_recipe(name)
    assert recipe.about
    assert "\n" not in recipe.about
    assert read_recipe_text(name).startswith("#"), "a shipped recipe begins with a comment that describes it"


LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
"""Of all texts that a file can hold."""
VALUES = {
    "about": st.text(LETTERS, max_size=40),
    "seeds": st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True),
    "teachers": st.just({"t": {"model": "~/x"}, "q-2.5": {"package": "p", "gguf": "null"}}),
    "student": st.one_of(
        st.builds(lambda layers: {"start": "prune_layers", "from": "t", "layers": layers}, st.integers(1, 9)),
        st.just({"start": "prune_layers", "from": "t", "layers": [0, 3]}),
        st.just({"start": "scratch", "config": {"model_type": "llama", "rope": {"theta": 1e4}}}),
        st.builds(lambda name: {"start": "checkpoint", "model": name}, st.text(LETTERS, max_size=9)),
    ),
    "capture": st.sampled_from([None, {}, {"keep": "hybrid", "samples": 3}]),
    "control": st.sampled_from([None, {}, {"training": {"learning_rate": 1e-07}}]),
}
MATCHED = [{"kind": "hidden_match", "layers": [[0, 3], [1, 5]]}, {"kind": "hidden_match", "distance": "cosine"}]


@given(st.fixed_dictionaries({}, optional=VALUES))
@example({"student": {"start": "checkpoint", "model": "\x85"}})
@example({"about": "a\u2028b"})
@example({"about": "naïve \x85"})
@example({"capture": None, "distil": {"losses": MATCHED}})
def test_a_written_recipe_reads_as_the_same_recipe(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("shown")
    plain = minimal.recipe(folder).model_dump(mode="json", by_alias=True)
    recipe = Recipe.model_validate(plain | changes)
    assert load_recipe(str(minimal.write(folder, recipe_text(recipe)))) == recipe
    assert load_recipe(str(minimal.write(folder, recipe_text(recipe, defaults=False)))) == recipe


def test_a_recipe_is_written_in_the_order_of_its_stages(tmp_path):
    shown = recipe_text(minimal.recipe(tmp_path))
    sections = [line.partition(":")[0] for line in shown.splitlines() if line[0].isalpha()]
    assert sections == list(Recipe.model_fields)


def test_a_saved_recipe_that_was_changed_is_refused(tmp_path):
    recipe, run = minimal.recipe(tmp_path), Run(tmp_path / "run")
    with run.open(recipe.model_dump(mode="json", by_alias=True)):
        pass
    assert saved_recipe(run.folder) == recipe
    file = run.folder / "recipe.json"
    file.write_text(file.read_text().replace("0.95", "0.75"))
    with pytest.raises(UserError, match=r"recipe\.json is not as the run wrote it; run the recipe again"):
        saved_recipe(run.folder)
