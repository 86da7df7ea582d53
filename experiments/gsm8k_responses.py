"""Our extraction of answers against the published logs: every difference, and its cause.

`python -m experiments.gsm8k_responses` writes docs/experiments/gsm8k_responses.md from the logs in
$POTSTILL_DATA/gsm8k_responses.

The published rule is restated here as it was coded, with a switch for each of its faults and for each of our intended
differences. The cause of a difference is the smallest set of switches with which the rule gives our answer. A test
checks that the rule without switches gives the logged answer of every item that a person did not decide.
"""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from pathlib import Path

from experiments.pages import write_page
from experiments.seeds import table
from potstill.metrics.answers.extract import ANSWER_IS, REVIEW, Extracted, boxed, extract, reference, verdict
from potstill.metrics.answers.numbers import Number, numbers

FOLDER = Path(os.environ["POTSTILL_DATA"]) / "gsm8k_responses"
PAGE = Path("docs/experiments/gsm8k_responses.md")
CAUSES = {
    "box": "Rule 1 took unsigned digits only, and passed over a box with a sign, a currency, a unit or a fraction.",
    "previous row": "Rule 3 took the first number of an earlier response: the last one that had reached rule 4.",
    "capital": 'Rule 3 looked for "the answer is" in small letters only, and missed "The answer is".',
    "comma": "A comma without a digit counted as a number, so that a line or an answer seemed to hold another one.",
    "spelling": "Rule 2 compared the digits as written: `5`, `5.` and `5.00` did not agree.",
    "sign": "No rule kept the minus.",
    "fraction": "`2/5` was read as two numbers, 2 and 5.",
    "point": "`.4` was read as 4.",
    "exponent": "`4.0e+00` was read as two numbers.",
    "power": "The 3 of `in^3` counted as a number.",
    "unclear": "Ours, on purpose: times, dates, lists and chains of decimals (`1.2.3`), powers, quotients of decimals, "
    "divisions by zero and words such as million go to a person; the rule took a part of them.",
}
"""The faults of the published rule, and our intended differences. Each is a switch of ``as_coded``."""
MOST_AT_ONCE = 4
"""The most switches that one difference may need."""


@dataclass(frozen=True)
class Item:
    """A response of a log: the published program's answer (None: a person decided), the logged answer, and ours."""

    response: str
    coded: Fraction | None
    logged: float
    ours: Extracted
    reference: Fraction
    causes: tuple[str, ...]
    """The causes of a difference from ``coded``; () if there is none, or if no known cause explains it."""

    @property
    def differs(self) -> bool:
        """Whether the published program read another answer than ours."""
        return self.coded is not None and self.coded != self.ours.value


COUNTED: tuple[Callable[[Item], bool], ...] = (
    lambda item: item.coded is not None,
    lambda item: item.coded is not None and not item.differs,
    lambda item: item.differs,
    lambda item: item.differs and not item.causes,
    lambda item: item.coded is None,
)
"""The columns of the first table after the number of responses."""


def main() -> None:
    """Read every log, and write the page."""
    found = {file.stem: list(items(file)) for file in sorted(FOLDER.glob("*.csv"))}
    write_page(PAGE, page(found))


def items(file: Path) -> Iterator[Item]:
    """Every item of a log, in its order; the order matters to the published rule 3."""
    earlier: list[str] = []
    with file.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            response, ours = row["model_answer"], extract(row["model_answer"])
            coded, reached_rule_4 = as_coded(response, earlier)
            differs = coded is not None and coded != ours.value
            causes = explain(response, earlier, ours) if differs else ()
            yield Item(response, coded, float(row["model_ex1"]), ours, reference(row["answer"]), causes)
            earlier = reached_rule_4 or earlier


def explain(response: str, earlier: list[str], ours: Extracted) -> tuple[str, ...]:
    """The smallest set of causes without which the published rule gives our answer, or ()."""
    for several in range(1, MOST_AT_ONCE + 1):
        for causes in combinations(CAUSES, several):
            if as_coded(response, earlier, causes)[0] == ours.value:
                return causes
    return ()


def as_coded(response: str, earlier: list[str], mended: Iterable[str] = ()) -> tuple[Fraction | None, list[str]]:
    """The published rule's answer (None: a person decided), and the numbers it read if it came to rule 4.

    Args:
        response: the response.
        earlier: the numbers that it read in the last response that came to rule 4.
        mended: names of ``CAUSES``; these faults are removed.
    """
    mended = set(mended)
    box = _box(response, mended)
    line = _read(response.split("\n")[0], mended)
    phrase = (ANSWER_IS if "capital" in mended else re.compile("the ?(final|correct)* ?answer ?is")).search(response)
    after = _read(response[phrase.start() :], mended) if phrase else []
    agreeing = {_value(each) for each in line} if "spelling" in mended else set(line)
    if box:
        return _value(box), []
    if len(agreeing) == 1:
        return _value(line[0]), []
    if after:
        source = after if "previous row" in mended else earlier
        return (_value(source[0]) if source else None), []
    everything = _read(response, mended)
    return (_value(everything[-1]) if everything else None), everything


def _read(text: str, mended: set[str]) -> list[str]:
    """The numbers of a text as the published rule spelled them; a number with a mended fault is a fraction, or "?"."""
    found, at = [], 0
    for number in numbers(text):
        if _faults(number) and _faults(number) <= mended:
            found += _digits(text[at : number.start], mended)
            found.append("?" if number.value is None else str(number.value))
            at = number.start + len(number.text)
            at += len(re.match("[.,]*", text[at:])[0])  # type: ignore[index]
    return found + _digits(text[at:], mended)


def _digits(text: str, mended: set[str]) -> list[str]:
    text = re.sub(r"\^ *\{? *\d+", "", text) if "power" in mended else text
    found = re.findall(r"[,\d]+\.?[,\d]*", text)
    return [each for each in found if re.search(r"\d", each)] if "comma" in mended else found


def _faults(number: Number) -> set[str]:
    """The forms of a number that the published rule could not read."""
    if number.value is None:
        return {"unclear"}
    forms = {
        "sign": number.value < 0,
        "fraction": bool(re.search(r"[/⁄½¼¾]|frac", number.text)),
        "point": bool(re.search(r"(?<!\d)\.\d", number.text)),
        "exponent": bool(re.search(r"\d(?:[eE]|.*\^)", number.text)),
    }
    return {name for name, has in forms.items() if has}


def _box(response: str, mended: set[str]) -> str:
    if "box" in mended:
        found = boxed(response)
        return "" if found is None else "?" if found.value is None else str(found.value)
    plain = re.search(r"oxed\{ *([,\d]+\.?[,\d]*) *\}", response)
    return plain[1] if plain else ""


def _value(spelled: str) -> Fraction | None:
    digits = spelled.replace(",", "").removesuffix(".")
    return Fraction(digits) if digits and digits != "?" else None


def page(found: dict[str, list[Item]]) -> str:
    """The page, from the items of each log."""
    head = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    lines = table(
        ("log", "responses", "read by program", "of these: agree", "differ", "unexplained", "read by a person"),
        [
            (name, str(len(log)), *(str(sum(test(each) for each in log)) for test in COUNTED))
            for name, log in found.items()
        ],
    )
    lines += ["", "What our rules make of the same responses, before any person has looked:", ""]
    kinds = ("correct", "wrong", "no answer", "needs review")
    lines += table(
        ("log", "published correct", *kinds),
        [
            (
                name,
                str(sum(each.logged == float(each.reference) for each in log)),
                *(str(sum(verdict(each.ours, each.reference) == kind for each in log)) for kind in kinds),
            )
            for name, log in found.items()
        ],
    )
    return head + "\n".join([*lines, "", *_persons(found), "", *_differences(found)]) + "\n"


def _persons(found: dict[str, list[Item]]) -> list[str]:
    """How many responses that a person read our rules read too, and how many of them equally."""
    lines = []
    for name, log in found.items():
        theirs = [each for each in log if each.coded is None]
        ours = [each for each in theirs if each.ours.rule != REVIEW and each.ours.value is not None]
        same = sum(float(each.ours.value or 0) == each.logged for each in ours)
        lines.append(
            f"- {name}: of the {len(theirs)} responses that a person read, our rules read {len(ours)}, "
            f"{same} of them as the person did."
        )
    return lines


def _differences(found: dict[str, list[Item]]) -> list[str]:
    by_cause: dict[tuple[str, ...], list[tuple[str, int, Item]]] = defaultdict(list)
    for name, log in found.items():
        for number, each in enumerate(log):
            if each.differs:
                by_cause[each.causes].append((name, number, each))
    lines = ["## The causes", ""]
    lines += [f"- **{cause}**: {text}" for cause, text in CAUSES.items()]
    for causes, group in sorted(by_cause.items(), key=lambda pair: (len(pair[0]), -len(pair[1]))):
        lines += ["", f"## {' + '.join(causes) or 'unexplained'}: {len(group)}", ""]
        lines += table(
            ("log", "item", "theirs", "ours", "our rule", "read from"),
            [
                (name, str(number), _short(each.coded), _short(each.ours.value), each.ours.rule, _fragment(each))
                for name, number, each in group
            ],
        )
    return lines


def _short(value: Fraction | None) -> str:
    if value is None:
        return "–"
    text = str(value) if value.denominator == 1 or value.denominator < 1000 else f"{float(value):.6g}"
    return text if len(text) <= 12 else f"{float(value):.6g}"


def _fragment(item: Item) -> str:
    """A few characters around the number that we read."""
    text, response = item.ours.text, item.response
    phrase = ANSWER_IS.search(response)
    start = phrase.end() if phrase and item.ours.rule == "answer_is" else max(0, response.find("oxed{"))
    at = response.find(text, start if item.ours.rule in ("answer_is", "boxed") else 0)
    at = at if item.ours.rule not in ("last_number", REVIEW) else response.rfind(text)
    words = response[max(0, at - 16) : at + min(16, len(text))]
    return "`" + re.sub(r"[\s|`\x00-\x1f]+", " ", words).strip() + "`"


if __name__ == "__main__":
    main()
