"""Any damage to any file of a run, finished or stopped: a sentence, or the same result. Never another result.

`make fuzz` tries thousands.
"""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from interrupt import stopped_at
from potstill.cli.check import check
from potstill.cli.compare import comparison
from potstill.cli.review import answers_of
from potstill.metrics import comparison as model_comparison
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.status import describe
from refusals import Refused, unless_refused
from run_outputs import outputs
from tiny import toy_recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_texts", "equal_charts_are_drawn_once")]

TEXT = ["corpus.validation=6", "distil.snapshots=2", "select={by: loss}", "distil.training.save_steps=1"]
QUESTIONS = ["distil.training.save_steps=1", "experiments={base: {}}"]
STATES = (
    "text, finished",
    "text, stopped in a training",
    "text, stopped in the evaluation",
    "questions, finished",
    "questions, stopped in a training",
)


def _flipped(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def _zeroed(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]


OTHER_TEXTS = (b"null", b"[]", b"{}", b'{"digest": ""}', b"\xff\xfe", b"[" * 99999)
CONTENTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a flipped bit": _flipped,
    "another digit": lambda content, draw: content.replace(b"1", b"7", draw.randint(1, 3)),
    "zeros": _zeroed,
    "cut": lambda content, draw: content[: draw.randrange(len(content))],
    "empty": lambda content, draw: b"",
    "longer": lambda content, draw: content + draw.randbytes(draw.randint(1, 40)),
    "a line twice": lambda content, draw: content + content.splitlines(keepends=True)[-1],
    "another text": lambda content, draw: draw.choice(OTHER_TEXTS),
}


def _damage(file: Path, how: str, draw: random.Random) -> None:
    if how in CONTENTS and file.stat().st_size:
        file.write_bytes(CONTENTS[how](file.read_bytes(), draw))
    elif how == "a folder":
        file.unlink()
        file.mkdir()
    else:
        file.unlink()


@pytest.fixture(scope="module")
def runs(short_texts, equal_charts_are_drawn_once, tmp_path_factory):
    """By state: a recipe, a run of it in that state, and the outputs of the same run when nothing went wrong."""
    made = {}
    for name, shipped, overrides in (("text", "quickstart", TEXT), ("questions", "gsm8k-mini", QUESTIONS)):
        folder = tmp_path_factory.mktemp(name)
        recipe, whole = toy_recipe(folder, *overrides, recipe=shipped), Run(folder / "whole")
        run_recipe(recipe, whole)
        expected = outputs(whole)
        made[f"{name}, finished"] = recipe, whole, expected
        with pytest.MonkeyPatch.context() as patch:
            cut = Run(folder / "cut")
            stopped_at(3, recipe, cut, patch)
            made[f"{name}, stopped in a training"] = recipe, cut, expected
    recipe, whole, expected = made["text, finished"]
    measured = Run(shutil.copytree(whole.folder, whole.folder.with_name("measured"), symlinks=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_comparison, "bootstrap", _interrupt)
        (measured.path("evaluate") / "manifest.json").unlink()
        shutil.rmtree(measured.path("evaluate"))
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, measured)
    made["text, stopped in the evaluation"] = recipe, measured, expected
    return made


def _interrupt(*_, **__):
    raise KeyboardInterrupt


@settings(
    max_examples=settings.default.max_examples // 6,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
@pytest.mark.parametrize("state", STATES)
def test_damage_is_said_or_mended_and_changes_no_result(runs, tmp_path_factory, state, data):
    recipe, original, expected = runs[state]
    run = Run(shutil.copytree(original.folder, tmp_path_factory.mktemp("trial") / original.folder.name, symlinks=True))
    try:
        draw = random.Random(data.draw(st.integers(0, 2**32)))
        files = [file for file in sorted(run.folder.rglob("*")) if file.is_file() and file.name != ".lock"]
        # Most files lie in a few folders. Each stage is as likely as any other.
        stage = data.draw(st.sampled_from(sorted({file.relative_to(run.folder).parts[0] for file in files})))
        file = draw.choice([file for file in files if file.relative_to(run.folder).parts[0] == stage])
        _damage(file, data.draw(st.sampled_from([*CONTENTS, "a folder", "removed"])), draw)
        _look(run, original)
        refusal = unless_refused(lambda: run_recipe(recipe, run))
        if isinstance(refusal, Refused):
            assert refusal.is_one_sentence
        else:
            assert outputs(run) == expected, file.relative_to(run.folder)
    finally:
        shutil.rmtree(run.folder)


def _look(run: Run, original: Run) -> None:
    """A verb that only reads says what it said before the damage, or a sentence."""
    for look in (comparison_of, answers_of, lambda folder: list(check(folder)), describe):
        found = unless_refused(partial(look, run.folder))
        if isinstance(found, Refused):
            assert found.is_one_sentence
        elif look is comparison_of:
            assert found == look(original.folder)
        elif look is answers_of:
            # A model whose manifest is gone has not answered.
            whole = look(original.folder)
            assert all(answer in whole for answer in found)


def comparison_of(folder: Path) -> list[dict[str, object]]:
    return comparison([folder])
