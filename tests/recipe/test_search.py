"""`search:` — which settings and students it searches, what it refuses, and how a setting changes the losses."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.pipeline.graph import BY_NAME, all_steps, needed_by
from potstill.pipeline.up_to_date import plain_values
from potstill.recipe.losses import AcrossVocabularies, CrossEntropy, Divergence, HiddenMatch, LikelihoodMatching
from potstill.recipe.search import Setting, setting_of, with_setting
from potstill.recipe.step import Step

LOSSES = "distil.losses=[{kind: forward_kl, weight: 0.3907, temperature: 3}, {kind: cross_entropy, weight: 0.6093}]"
VALIDATION = "corpus.validation=4"
SHARE, TEMPERATURES = "search.share=[0.05, 0.95]", "search.temperatures=[1, 4]"
BOTH = (LOSSES, VALIDATION, SHARE, TEMPERATURES)
OWN = "experiments.confidence.losses=[{kind: forward_kl, temperature: 7}]"


def test_a_setting_does_not_depend_on_the_order_and_the_sum_of_the_losses():
    losses = [CrossEntropy(kind="cross_entropy", weight=1.5), Divergence(kind="reverse_kl", weight=0.5, temperature=2)]
    assert setting_of(losses) == setting_of(losses[::-1]) == Setting(0.25, 2.0)
    entropy, divergence = with_setting(losses, Setting(0.75, 5.0))
    assert (entropy.weight, divergence.weight, divergence.temperature) == (0.5, 1.5, 5.0)
    assert divergence.kind == "reverse_kl"


def test_a_loss_across_tokenizers_has_a_share_and_alm_no_temperature():
    entropy = CrossEntropy(kind="cross_entropy", weight=0.5)
    alm, uld = LikelihoodMatching(kind="alm", weight=1.5), AcrossVocabularies(kind="uld", weight=0.5, temperature=2)
    assert setting_of([alm, entropy]) == Setting(0.75, 1.0)
    assert setting_of([uld, entropy]) == Setting(0.5, 2.0)
    changed = with_setting([alm, entropy], Setting(0.25, 1.0))
    assert changed == [LikelihoodMatching(kind="alm", weight=0.5), CrossEntropy(kind="cross_entropy", weight=1.5)]
    assert with_setting([uld, entropy], Setting(0.25, 3.0))[0].temperature == 3.0


def test_the_given_setting_gives_the_same_losses_to_the_last_bit():
    losses = [Divergence(kind="forward_kl", weight=0.7), CrossEntropy(kind="cross_entropy", weight=0.3)]
    setting = setting_of(losses)
    assert 1 - setting.share != 0.3, "recomputed weights would differ"
    assert with_setting(losses, setting) == losses


def test_other_losses_have_no_setting():
    entropy, divergence = CrossEntropy(kind="cross_entropy"), Divergence(kind="forward_kl")
    matched = HiddenMatch(kind="hidden_match")
    for losses in ([divergence], [entropy, divergence, divergence], [entropy, divergence, matched], [entropy, matched]):
        assert setting_of(losses) is None


def test_every_experiment_without_its_own_losses_is_searched(tmp_path):
    recipe = minimal.questions(tmp_path, *BOTH, OWN)
    assert [recipe.is_searched(name) for name in recipe.variants] == [True, False, True]
    assert recipe.tried_on == "base"
    assert minimal.questions(tmp_path, *BOTH, "search.experiment=shuffled").tried_on == "shuffled"
    first = minimal.questions(tmp_path, *BOTH, OWN.replace("confidence", "base"))
    assert first.tried_on == "confidence", "the first has its own losses"
    assert minimal.recipe(tmp_path, *BOTH).tried_on is None
    assert not minimal.recipe(tmp_path, LOSSES).is_searched(None)


def test_a_capture_keeps_the_temperatures_of_all_settings_and_no_others(tmp_path):
    recipe = minimal.questions(tmp_path, *BOTH, OWN)
    assert recipe.temperatures_of("base/own") == [1.0, 3.0, 4.0]
    assert recipe.temperatures_of("confidence/own") == [7.0]
    assert recipe.most_temperatures == [3.0], "one training still reads at one temperature"
    assert minimal.questions(tmp_path, LOSSES, VALIDATION, SHARE).temperatures_of("base/own") == [3.0]


def test_search_runs_before_the_students_that_need_it_and_reads_no_held_out_answers(tmp_path):
    recipe = minimal.questions(tmp_path, *BOTH, OWN)
    steps = [str(step) for step in all_steps(recipe)]
    assert steps.index("capture/confidence/own") < steps.index("search") < steps.index("distil/base/seed-0")
    needed = [str(step) for step in needed_by(recipe, Step("search"))]
    assert needed == ["teachers", "corpus", "student", "strategies/base/own", "capture/base/own"]
    for name, waits in (("base", True), ("confidence", False), ("shuffled", True)):
        assert (Step("search") in needed_by(recipe, Step("distil", 0, name))) is waits
    assert Step("search") not in needed_by(recipe, Step("control", 0))
    assert "search" not in [step.stage for step in all_steps(minimal.questions(tmp_path))]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("search.trials=3", True),
        ("search.training.max_steps=7", True),
        ("distil.training.max_steps=7", True),
        ("distil.losses.0.temperature=2", True),
        ("distil.keep=best", False),
        ("control.training.learning_rate=7", False),
    ],
)
def test_which_changes_run_search_again(tmp_path, change, again):
    one, other = (minimal.recipe(tmp_path, *BOTH, *more) for more in ([], [change]))
    reads = [plain_values(BY_NAME["search"].recipe_inputs(recipe, Step("search"))) for recipe in (one, other)]
    assert (reads[0] != reads[1]) is again


KINDS = "`search` needs one cross_entropy and one divergence in `distil.losses`, which has "


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([LOSSES, VALIDATION, "search={}"], "`search.share`: is missing, and so is `temperatures`"),
        ([*BOTH, "search.share=[0.5, 0.5]"], "`search.share`: must be the least and the greatest share, in this order"),
        ([*BOTH, "search.share=[0, 0.5]"], "`search.share.0`: must be greater than 0, not 0"),
        ([*BOTH, "search.share=[0.5]"], "`search.share`: must be the least and the greatest share"),
        (
            [*BOTH, "search.temperatures=[2, 2.0]"],
            "`search.temperatures`: lists a temperature twice; remove one of them",
        ),
        ([*BOTH, "search.temperatures=[]"], "`search.temperatures`: is empty"),
        ([*BOTH, "search.trials=0"], "`search.trials`: must be greater than 0, not 0"),
        (
            [*BOTH, "search.experiment=bas"],
            "`search.experiment`: 'bas' is not one of the `experiments`; choose one of base",
        ),
        ([*BOTH, OWN, "search.experiment=confidence"], "`search.experiment`: 'confidence' has its own losses"),
        ([*BOTH, "search.training.output_dir=x"], "`search.training.output_dir`: must not be set"),
        ([LOSSES, SHARE], "`search` needs `corpus.validation`, which is missing"),
        ([VALIDATION, SHARE], f"{KINDS}forward_kl; give these two, or remove `search`"),
        (
            [LOSSES, VALIDATION, "search.temperatures=[3]"],
            "`search.temperatures`: 3 is already the temperature of `distil.losses`; add another temperature",
        ),
        (
            [*BOTH, "capture={keep: sample}"],
            "`search.temperatures`: `capture.keep: sample` works at one temperature; use `top_k` or `hidden`",
        ),
    ],
)
def test_an_impossible_search_is_refused(tmp_path, overrides, sentence):
    with pytest.raises(UserError) as error:
        minimal.questions(tmp_path, *overrides)
    assert sentence in str(error.value)


def test_search_is_refused_if_every_experiment_has_its_own_losses(tmp_path):
    own = [OWN.replace("confidence", name) for name in ("base", "confidence", "shuffled")]
    with pytest.raises(
        UserError, match=r"`search` finds a setting of `distil.losses`, but every experiment has its own losses"
    ):
        minimal.questions(tmp_path, *BOTH, *own)


def test_shares_can_be_searched_with_every_capture(tmp_path):
    given = [LOSSES, VALIDATION, SHARE, "search.temperatures=[3]", "capture={keep: sample}"]
    assert minimal.questions(tmp_path, *given).search.temperatures == [3.0]
