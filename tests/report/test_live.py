"""The page of a run at work draws what it is told, and the terminal shows the same."""

import json
import re
from html import unescape
from io import StringIO

import pytest
from rich.console import Console

from chromium import BROWSER, browse
from potstill.report.live import page, terminal_view

BAD = "<script>window.broken = 1</script> [red]"


def step(name, state, **more):
    empty = dict.fromkeys(("seconds", "forecast", "kwh", "memory", "done", "of"))
    return {"name": name, "state": state, "made": BAD, **empty, **more}


RUN = {
    "name": BAD,
    "about": BAD,
    "state": "running",
    "silent": 1.0,
    "steps": [
        step("corpus", "done", seconds=3.2, forecast=5.0, kwh=2e-6, memory=6e8),
        step("distil/seed-0", "running", seconds=100.0, forecast=300.0, kwh=0.002, done=30, of=120),
        step("control/seed-0", "stopped"),
        step("report", "left"),
    ],
    "seconds_left": 3725.0,
    "seconds": 103.2,
    "kwh": 0.002,
    "memory": 6.5e8,
    "tokens_per_second": 1234.5,
    "curves": [
        {"model": model, "seed": 0, "steps": 120, "terms": {"loss": [[1, 5.0], [30, 3.0]], "cross_entropy": [[1, 4.0]]}}
        for model in ("student", "control")
    ],
    "texts": [{"model": "student", "step": 30, "texts": [{"beginning": "Once", "text": BAD}]}],
    "has_report": False,
}
STATES = ("running", "done", "stopped", "killed", "waiting")
PROBE = """<script>addEventListener("load", () => setTimeout(() => {
  const told = { text: document.body.innerText.replace(/\\s+/g, " "), paths: document.querySelectorAll("path").length,
    broken: String(window.broken), wide: document.documentElement.scrollWidth > innerWidth };
  document.body.replaceChildren(document.createTextNode("@@" + JSON.stringify(told) + "@@"));
}, 100));</script>"""


def seen_in_browser(folder, told):
    """What the page shows after its first answer, which is `told`."""
    content = json.dumps(json.dumps(told)).replace("</", r"<\/")
    answer = f"<script>window.fetch = async () => ({{ text: async () => {content} }});</script>"
    html = page("a run").replace("<body>", f"<body>{answer}", 1)
    dom = browse(folder, html.replace("</body>", f"{PROBE}</body>"), "--dump-dom")
    return json.loads(unescape(dom.split("@@")[1]))


def test_the_page_loads_nothing_from_elsewhere_and_escapes_its_name():
    html = page(BAD)
    assert BAD not in html
    assert not re.search(r"(?:src|href)=[\"']https?:|@import|url\(", html)


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_the_page_draws_the_run_and_no_text_becomes_markup(tmp_path):
    seen = seen_in_browser(tmp_path, RUN)
    for said in ("Running", "1 h 02 min", "1,235", "650.0 MB", "2.0 Wh", "30 of 120 steps", "student, step 30"):
        assert said in seen["text"]
    assert BAD in seen["text"]
    assert seen["broken"] == "undefined"
    assert seen["paths"] == 4
    assert not seen["wide"]


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_the_page_says_why_a_run_cannot_be_read(tmp_path):
    seen = seen_in_browser(tmp_path, {"error": "recipe.json is not as the run wrote it"})
    assert "not as the run wrote it" in seen["text"]


@pytest.mark.parametrize("state", STATES)
def test_the_terminal_shows_every_state(state):
    out = StringIO()
    Console(file=out, width=160).print(terminal_view({**RUN, "state": state}))
    text = out.getvalue()
    for said in ("distil/seed-0", "30 of 120 steps", "1 h 02 min left", "tokens/s", "cross_entropy student", "[red]"):
        assert said in text
    expected = {"running": "running", "done": "done", "killed": "1.0 s ago"}
    assert expected.get(state, "same command") in text


def test_the_terminal_shows_a_run_that_has_told_nothing_yet():
    out = StringIO()
    empty = dict.fromkeys(("seconds_left", "kwh", "memory", "tokens_per_second", "silent"))
    Console(file=out, width=100).print(terminal_view({**RUN, **empty, "state": "killed", "steps": [], "curves": []}))
    assert "ago" in out.getvalue()
