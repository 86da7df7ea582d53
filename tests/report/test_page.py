"""The page shows the report's data, escaped, and loads nothing from elsewhere."""

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from potstill.cost import Cost, Expense
from potstill.report.data import TURN_METRICS, Report, ShownAnswer, ShownPrompt
from potstill.report.page import render

NAMES = [
    "spans",
    "one seed",
    "three seeds",
    "no control",
    "negative",
    "null",
    "hostile",
    "matrix",
    "matrix of one seed",
]


class Page(HTMLParser):
    """The text that a reader sees, the tags, and every address that the page could load from."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts, self.tags, self.addresses, self.open = [], [], [], []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", "".join(self.texts))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag in ("script", "style"):
            self.open.append(tag)
        self.addresses += [
            value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "data")
        ]

    def handle_endtag(self, tag):
        if self.open and tag == self.open[-1]:
            self.open.pop()

    def handle_data(self, data):
        if not self.open:
            self.texts.append(data)


@pytest.fixture(scope="module")
def pages(examples) -> dict[str, str]:
    return {name: render(examples[name]()) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_loaded_from_anywhere(pages, name):
    html = pages[name]
    assert all(address.startswith("data:image/svg+xml,") for address in Page(html).addresses)
    without_names_of_grammars = html.replace("http://www.w3.org/2000/svg", "").replace(
        "http://www.w3.org/1999/xlink", ""
    )
    assert not re.search(r"(url\(|@import|https?://(?!www\.w3\.org%2F2000))", without_names_of_grammars)
    assert len(html.encode()) < 500_000


def test_what_was_given_is_on_the_page(pages, examples):
    report, page = examples["one seed"](), Page(pages["one seed"])
    for text in (report.title, report.story, report.recipe, report.date, report.version, report.host, report.command):
        assert text in page.text
    for text in (
        "4.64 [4.59, 4.70]",
        "38.5% [",
        "✓ −0.10 [−0.12, −0.08]",
        "134.5M",
        "162.9 MB",
        "1 min 01 s",
        "5.8 Wh",
    ):
        assert text in page.text
    for model in report.models:
        assert model.name in page.text
    for stage in report.stages:
        assert stage.made in page.text
    assert "2 attempts" in page.text
    assert "estimated: CPU, from its load and a rated power of 8 W" in page.text
    assert page.tags.count("svg") == 2 * 5 + 2 + 4


def test_verdict_comes_before_the_rest(pages):
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", pages["one seed"])
    assert headings[0] == "Distillation helped."
    assert headings[1] == "The comparison"


def test_text_reads_as_text(pages, examples):
    page, html = Page(pages["one seed"]), pages["one seed"]
    assert "The Loire is the longest river in France and the 171st" in page.text
    assert "↵\n" in unescape(html)
    assert "日本語のテキスト and naïve café 🙂" in page.text


def test_markup_in_names_stays_text(pages, examples):
    html = pages["hostile"]
    assert "<script>window.broken" not in html
    assert "<script>alert" not in pages["one seed"]
    page, bad = Page(html), examples["hostile"]().title
    assert page.tags.count("script") == 2
    assert page.text.count(bad) >= 10


def test_cards_know_both_models(pages, examples):
    found = re.search(r'<script type="application/json" id="tokens">(.*?)</script>', pages["one seed"], re.DOTALL)
    assert found
    passage, token = json.loads(found[1])[0], examples["one seed"]().passages[0].tokens[3]
    assert passage[0] is None
    assert passage[3]["text"] == token.text
    assert [text for text, _ in passage[3]["student"]] == [text for text, _ in token.student_top5]
    assert len(passage[3]["teacher"]) == 5


def test_spans_are_told_as_such(pages, examples):
    page, passage = pages["spans"], examples["spans"]().passages[0]
    text = " ".join(Page(page).text.split())
    assert "how much more a word surprises the student" in text
    assert "Each title says how many bits per byte more the student has than the teacher" in text
    assert [text.count(f", {which}: +0.") for which in ("typical", "hardest", "second hardest")] == [1, 1, 1]
    assert "how much more a word surprises" not in pages["one seed"]
    found = re.search(r'<script type="application/json" id="tokens">(.*?)</script>', page, re.DOTALL)
    assert found
    shown = json.loads(found[1])[0]
    assert shown[0]["excess"] == pytest.approx(passage.tokens[0].excess, abs=1e-3)
    assert shown[-1] is None


def test_seeds_add_their_spread(pages):
    text = Page(pages["three seeds"]).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "3 seeds: 4.63 to 4.65, sd" in text
    assert "over units alone [4." in text
    assert "Bars cover chance in the units and in the seeds" in text
    assert "over units" not in Page(pages["one seed"]).text
    assert "seeds:" not in Page(pages["one seed"]).text


def test_without_a_control_the_start_is_compared(pages):
    text = Page(pages["no control"]).text
    assert "Student − before" in text
    assert "Student − control" not in text


def test_an_almost_empty_report_is_still_a_page(examples):
    whole = examples["one seed"]()
    empty = Report("t", "r", "s", "v", "d", "h", "c", rows=(), paired=())
    assert "the student was not evaluated" in render(empty)
    assert render(replace(empty, rows=whole.rows[:1]))


def test_unmeasured_energy_is_not_zero(examples):
    whole = examples["one seed"]()
    stages = tuple(replace(stage, cost=Cost(1.0, None, None, "not measured: no meter")) for stage in whole.stages)
    text = Page(render(replace(whole, stages=stages))).text
    assert "not measured: no meter" in text
    assert "0 Wh" not in text


def test_several_students_are_all_on_the_page(pages, examples):
    report, page = examples["matrix"](), Page(pages["matrix"])
    for model in report.models:
        assert f"strategy {model.name}" in page.text or model.role in ("teacher", "start")
    assert "Minus the control" in page.text
    assert "adapter: 460,800" in page.text
    assert "the adapter alone" in page.text
    assert "Holm’s correction for all 5 students" in page.text
    assert "Lines are means over seeds" in page.text
    assert "Lines are means over seeds" not in Page(pages["matrix of one seed"]).text
    assert page.text.count("of every student and control") == 1
    # Intervals and differences of four metrics, quality against speed and size, four curves, and the legend of these.
    assert page.tags.count("svg") == 2 * 4 + 2 + 4 + 6


def test_many_steps_are_a_line_for_each_stage_which_opens(pages):
    page, few = Page(pages["matrix"]), Page(pages["matrix of one seed"])
    assert page.tags.count("details") == 2
    assert "15 steps" in page.text
    assert "distil/ground-truth/seed-2: loss 2.5, 10 s" in page.text
    assert "2 min 30 s" in page.text
    assert few.tags.count("details") == 0
    assert "distil/ground-truth/seed-0" in few.text


def test_an_experiment_may_have_the_name_of_a_model(pages):
    html = pages["matrix"]
    assert '<span class="key student" style="--colour: var(--s2)">Student teacher</span>' in html
    assert '<span class="key teacher">Teacher</span>' in html


def test_what_measuring_each_model_took_is_told_with_how_it_is_known(examples):
    estimated = Expense(
        "continuations-facts", "student-0", Cost(61, 0.0012, 0.0005, "estimated: CPU, from a constant"), 500, 400
    )
    unknown = Expense("held-out-text", "teacher", Cost(61, None, None, "not measured: no meter"), 500, 0)
    page = Page(render(replace(examples["one seed"](), expenses=(estimated, unknown)))).text
    assert "Cost of measuring each model" in page
    row = page[page.index("continuations-facts") :]
    assert "3 Whwritten" in row, "1.2 Wh for 400 tokens"
    assert "estimated" in row
    assert "not measured" in page[page.index("held-out-text") :]


def test_prompts_stand_above_the_answers_to_them(examples):
    answers = (
        ShownAnswer(None, "It is the sky."),
        ShownAnswer("teacher", "Sky."),
        ShownAnswer("student", "sky " * 400, cut=True),
        ShownAnswer("control", " "),
    )
    prompt = ShownPrompt("chats.jsonl:7", (("system", "Be brief."), ("user", "What is blue?")), answers)
    html = render(replace(examples["one seed"](), prompts=(prompt,)))
    text = Page(html).text.partition("The same prompts, answered")[2]
    expected = ["chats.jsonl:7", "Be brief.", "What is blue?", "Reference", "It is the sky.", "Teacher", "Sky."]
    expected += ["Student", "cut at the limit", "1,600 characters", "Control", "nothing"]
    places = [text.index(said) for said in expected]
    assert places == sorted(places)
    section = html[html.index('aria-labelledby="prompts"') :]
    assert section[: section.index("</section>")].count("<details>") == 1, "long texts are folded, and no others"
    assert "The same prompts" not in render(examples["one seed"]())


@pytest.mark.parametrize("name", ["one seed", "matrix"])
def test_figures_by_turn_have_a_table_of_their_own(examples, name):
    report = examples[name]()
    of_turns = {"rows": report.rows, "paired": report.paired}
    for kind, found in of_turns.items():
        loss = [one for one in found if one.metric == "loss"]
        of_turns[kind] = (*found, *(replace(one, metric="loss/turn 2", n=12) for one in loss))
    html = render(replace(report, turns=TURN_METRICS, **of_turns))
    section = html[html.index('aria-labelledby="turns"') :].partition("</section>")[0]
    assert "Loss, turn 2" in section
    assert "n = 12" in section
    assert "turn 1" not in section
    assert "turn 2" not in html.replace(section, ""), "by turn, nothing is drawn or judged elsewhere"
