"""The page in a real browser: no error, charts drawn, cards shown by pointer and by keyboard, screenshots."""

import re
from html import escape

import pytest

from chromium import BROWSER, browse
from potstill.report.page import render

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")

ERRORS = "<script>window.errors = []; addEventListener('error', event => errors.push(event.message));</script>"
PROBE = """<script>addEventListener("load", () => {
  const card = document.getElementById("card"), found = {};
  const look = name => { found[name] = card.hidden ? "hidden" : card.innerText; };
  look("before");
  const tokens = document.querySelectorAll("[data-token]");
  tokens[3]?.dispatchEvent(new MouseEvent("mouseover", { bubbles: true })); look("pointer");
  document.body.dispatchEvent(new MouseEvent("mouseover", { bubbles: true })); look("away");
  tokens[0]?.focus(); look("focus");
  tokens[0]?.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true })); look("arrow");
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true })); look("escape");
  const mark = document.querySelector(".chart .role-mark [aria-label]");
  mark?.dispatchEvent(new MouseEvent("mouseover", { bubbles: true })); look("mark");
  found.errors = errors.join(); found.broken = String(window.broken);
  const charts = [...document.querySelectorAll(".chart svg:not(.sample)")];
  found.drawn = charts.every(svg => svg.getBoundingClientRect().height > 30);
  found.paper = getComputedStyle(document.body).backgroundColor;
  found["mark-colour"] = getComputedStyle(document.querySelector(".chart .role-mark path")).fill;
  found.wide = document.documentElement.scrollWidth > innerWidth;
  const cut = [...document.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth);
  found.cut = cut.map(box => box.getAttribute("aria-label")).join();
  document.body.innerHTML = "<pre id=found></pre>";
  for (const [name, value] of Object.entries(found)) document.getElementById("found").append(`@${name}=${value}`);
});</script>"""


WIDTHS = (390, 1024, 1280)
MEASURE = """<pre id=found></pre><script>addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe")) {
    const inside = frame.contentDocument, width = frame.width;
    const cut = [...inside.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth);
    const wide = inside.documentElement.scrollWidth > frame.clientWidth;
    // On a phone, a table may be moved sideways; the page itself never.
    const tables = width > 1000 ? cut.map(box => `${box.getAttribute("aria-label")} ${box.scrollWidth}`).join() : "";
    const told = { page: wide ? "wide" : "", tables, error: inside.defaultView.errors.join() };
    for (const [name, value] of Object.entries(told)) found.append(`@${name}${width}=${value}`);
  }
  for (const frame of document.querySelectorAll("iframe")) frame.remove();
});</script>"""


def frames(html: str) -> str:
    """The page in a frame of each width: a headless browser has no window that is narrower than 500 px."""
    inside = escape(html.replace("<head>", f"<head>{ERRORS}", 1))
    each = (f'<iframe width={width} height=800 style="border:0" srcdoc="{inside}"></iframe>' for width in WIDTHS)
    return f"<!doctype html><meta charset=utf-8>{''.join(each)}{MEASURE}"


def probe(folder, html, *flags):
    watched = html.replace("<head>", f"<head>{ERRORS}", 1)
    dom = browse(folder, watched.replace("</body>", f"{PROBE}</body>"), "--dump-dom", *flags)
    found = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[-2000:]
    return dict(part.split("=", 1) for part in found[1].split("@")[1:])


@pytest.mark.parametrize("window", ["1280,800", "500,900"])
def test_the_page_works(tmp_path, examples, window):
    report = examples["three seeds"]()
    seen = probe(tmp_path, render(report), f"--window-size={window}")
    assert seen["errors"] == ""
    assert seen["drawn"] == "true"
    assert seen["wide"] == "false"
    assert [seen[name] for name in ("before", "away", "escape")] == ["hidden"] * 3
    token = report.passages[0].tokens[4]
    for word, _ in (*token.teacher_top5, *token.student_top5):
        assert word.replace(" ", "␣").replace("\n", "↵") in seen["pointer"]
    assert "Teacher" in seen["pointer"]
    assert f"KL {token.kl:.2f}" in seen["pointer"]
    assert seen["focus"] not in ("hidden", seen["arrow"])
    assert "Loss" in seen["mark"]


def test_a_card_of_a_span_tells_both_surprises(tmp_path, examples):
    report = examples["spans"]()
    seen, span = probe(tmp_path, render(report)), report.passages[0].tokens[3]
    assert seen["errors"] == ""
    assert span.excess is not None
    assert f"{abs(span.excess):.2f} nats" in seen["pointer"]
    assert "surprises the student" in seen["pointer"]
    assert f"{span.teacher_nll:.2f} nats of the teacher" in seen["pointer"]
    assert "KL" not in seen["pointer"]
    assert seen["focus"] not in ("hidden", seen["arrow"])


@pytest.mark.parametrize("name", ["three seeds", "spans", "matrix", "longest"])
def test_no_table_is_cut_at_any_usual_width(tmp_path, examples, name):
    html = render(examples[name]())
    dom = browse(tmp_path, frames(html), "--dump-dom", "--window-size=1400,900")
    found = dict(re.findall(r"@(\w+)=([^@<]*)", dom))
    assert found == {name: "" for width in WIDTHS for name in (f"page{width}", f"tables{width}", f"error{width}")}


def test_markup_in_names_runs_nowhere(tmp_path, examples):
    seen = probe(tmp_path, render(examples["hostile"]()))
    assert seen["errors"] == ""
    assert seen["broken"] == "undefined"


def test_the_page_follows_the_readers_scheme(tmp_path, examples):
    html = render(examples["one seed"]())
    light, dark = (probe(tmp_path, html, f"--blink-settings=preferredColorScheme={scheme}") for scheme in (1, 0))
    assert light["paper"] == "rgb(252, 251, 248)"
    assert dark["paper"] == "rgb(22, 21, 19)"
    assert light["mark-colour"] != dark["mark-colour"]


def test_there_is_something_to_look_at(tmp_path, examples):
    picture = tmp_path / "page.png"
    browse(tmp_path, render(examples["one seed"]()), f"--screenshot={picture}", "--window-size=1280,800")
    assert picture.stat().st_size > 50_000, "a blank page of this size makes a PNG of 5 kB"
