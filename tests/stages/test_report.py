import re

from potstill.pipeline import Work
from potstill.run import Run, Step
from potstill.runner import run_recipe
from potstill.stages.report import gather
from tiny import toy_recipe


def _page(run):
    return (run.path("report") / "index.html").read_text(encoding="utf-8")


def test_the_page_stands_alone(run):
    page = _page(run)
    loads = re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)([^"']+)""", page)
    assert not [address for address in loads if address.startswith(("http:", "//"))]
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)\s*=\s*[\"']https?:", page)


def test_the_page_names_every_model_and_every_figure(run):
    page = _page(run)
    for said in ("smollm2", "student", "control", "Distilled" if "Distilled" in page else "distil"):
        assert said in page
    assert "56,352" in page or "56k" in page.lower(), "the teacher's size"


def test_curves_are_the_losses_and_nothing_else(run, recipe):
    report = gather(Work(recipe, run, Step("report")))
    assert {(curve.model, curve.seed) for curve in report.curves} == {
        (model, seed) for model in ("student", "control") for seed in range(3)
    }
    common = {"step", "loss", "learning_rate", "tokens"}
    for curve in report.curves:
        terms = {"cross_entropy", "forward_kl"} if curve.model == "student" else {"cross_entropy"}
        assert all(point.keys() == common | terms for point in curve.points)
        assert [point["tokens"] for point in curve.points] == sorted(point["tokens"] for point in curve.points)


def test_a_page_is_drawn_of_the_least_that_a_recipe_can_ask_for(tmp_path):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "control=null", "capture=null", "evaluate.documents=2"), run)
    assert "leaves the control out" in _page(run)
