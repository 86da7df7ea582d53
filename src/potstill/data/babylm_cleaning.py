"""Cleaning rules for each of BabyLM's ten sources.

Baby Llama (Timiryasov and Tastet, arXiv 2308.02019) cleaned each source in its own way. `RULES` has two sets of rules:
`published` gives the files of the published run byte for byte, faults included; `sound` does what the authors meant.
The faults: a blank line, which separates articles or conversations, was deleted with both line ends, so that the text
before it ran into the text after it; a line such as "..." stopped the program; and the HTML tags and non-verbal cues
that the authors say were removed stayed in. A text cleaned with `sound` does not change when it is cleaned again.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from potstill.errors import UserError

RuleSet = Literal["published", "sound"]
Edit = Callable[[str], str]

SENTENCE_END = re.compile(r"([.!?]\s*)")
CAPITALS = re.compile(r"[A-Z]{2}|l[A-Z]")
MISREAD_I = re.compile(r"(?<=[A-Z])l|l(?=[A-Z])|\bl\b")
HEADING = re.compile(r"^(?:= ){3,}(.+?)(?: =){3,}$")

_ATTRIBUTE = r"""\s+[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>/&]+)"""
_TAG_NAMES = (
    "abbr|b|big|blockquote|br|center|cite|code|dd|del|div|dl|dt|em|font|gallery|h[1-6]|hr|i|img|includeonly|ins|kbd|li|math|"
    "noinclude|nowiki|ol|onlyinclude|p|poem|pre|q|ref|references|s|samp|section|small|source|span|strike|strong|sub|sup|"
    "syntaxhighlight|table|tbody|td|templatestyles|th|thead|timeline|tr|tt|u|ul|var|wbr"
)
# The program that took BabyLM's text out of Wikipedia escaped some markup: hence &lt; as well as <.
TAG = re.compile(rf"(?:<|&lt;)/?({_TAG_NAMES})(?:{_ATTRIBUTE})*\s*/?(?:>|&gt;)", re.IGNORECASE)
BREAKS = {"br", "hr", "p", "li", "dd", "dt", "div", "td", "th", "tr"}
"""Tags that separate words; the other tags stand within words, as in H<sub>2</sub>O."""

_SOUND = (
    "applause|applauds|applauding|beep(?:s|ing)?|cheer(?:s|ing)|chuckl(?:es|ing)|clap(?:s|ping)|clears throat|"
    "cough(?:s|ing)?|crying|gasp(?:s|ing)?|giggl(?:es|ing)|groan(?:s|ing)?|inaudible|indistinct|laugh(?:s|ter|ing)?|"
    "moan(?:s|ing)?|music|panting|scream(?:s|ing)|sigh(?:s|ing)?|silence|sniff(?:s|les|ling|ing)|snor(?:es|ing)|"
    "sob(?:s|bing)|unintelligible|whimper(?:s|ing)|whistl(?:es|ing)"
)
# "(Applause)", "[soft music]", "(audience laughs loudly)", "[Music playing]", but not "(the music industry)".
_CUE = rf"(?:[\w'’-]+\s+)?(?:{_SOUND})(?:\s+(?:\w+ly|plays|playing|stops|ends|fades|continues))?[.!?:…]*"
CUE = re.compile(rf"\s*(?:\(\s*{_CUE}\s*\)|\[\s*{_CUE}\s*\]|^\W*\[[^][]*\]\W*$|[♩♪♫♬])", re.IGNORECASE)


# Rules for a whole text.


def single_spaces(text: str) -> str:
    """Runs of spaces, tabs and no-break spaces become one space."""
    return re.sub(r"[ \t\u00a0]+", " ", text)


def close_punctuation(text: str) -> str:
    """No space before `. , ; ! ?`: these sources come tokenized, "you do ?"."""
    return re.sub(r"[ \t\u00a0]([.,;!?])", r"\1", text)


def close_apostrophes(text: str) -> str:
    """No space between a word and any `'x`: "Dan 's" becomes "Dan's"; "of 'em" becomes "of'em", by mistake."""
    return re.sub(r"(\w)[ \t\u00a0](['’]\w)", r"\1\2", text)


def close_clitics(text: str) -> str:
    """No space before `'s 'll 'm 'd 've 're 't`; a separate word that begins with an apostrophe keeps its space.

    `close_apostrophes` takes 4831 spaces out of cbt.train; 76 of them stand before such a word, most often "'em".
    """
    return re.sub(r"(?<=\w)[ \t\u00a0](?=['’](?:s|ll|m|d|ve|re|t)\b)", "", text, flags=re.IGNORECASE)


def glue_blank_lines(text: str) -> str:
    """Two line ends become none: the two lines that they separated become one."""
    return text.replace("\n\n", "")


def one_blank_line(text: str) -> str:
    """Runs of blank lines become one blank line; blank lines at the top are removed."""
    return re.sub(r"\n\s*\n", "\n\n", text).lstrip("\n")


def glue_titles(text: str) -> str:
    """`= = = T = = =` and its line end become `T`, so a paragraph on the next line begins with the title."""
    return re.sub(r"= = = (.+?) = = =\n", r"\1", text)


def strip_lines(text: str) -> str:
    """White space around each line and the last line end are removed."""
    return "\n".join(line.strip() for line in text.splitlines())


def drop_first_character(text: str) -> str:
    """The first character is removed, whatever it is."""
    return text[1:]


def recase_lines(text: str) -> str:
    """Every line goes through `recase_published` and is stripped; the last line end is removed."""
    return "\n".join(recase_published(line).strip() for line in text.splitlines())


def drop_credits(text: str) -> str:
    """Lines with "subtitle" in them ("Subtitles by …") are removed, except a last line without a line end."""
    return re.sub(r"(?mi)^.*subtitle.*\n", "", text)


def drop_all_credits(text: str) -> str:
    """Lines with "subtitle" in them are removed, the last line too."""
    return re.sub(r"(?mi)^.*subtitle.*(?:\n|\Z)", "", text)


# Rules for one line.


def recase_published(line: str) -> str:
    """Turn a line in capitals into sentences: l (a misread I) becomes I; only a sentence's first character stays upper.

    A line is in capitals if at least half of its characters are. Spaces count; `.!?` and text in parentheses do not.
    On a line without any other character ("...", "(Applause)") the published program divided by zero. There is
    nothing to reproduce, so the line stays.
    """
    body = re.sub(r"\(.*?\)|[.!?]", "", line)
    if not body or sum(map(str.isupper, body)) / len(body) < 0.5:
        return line
    return "".join(part.capitalize() for part in SENTENCE_END.split(line.replace("l", "I")))


def recase(line: str) -> str:
    """Turn a line in capitals into sentences, which begin with a capital even after a quotation mark; "I" is kept.

    A line is in capitals if two capitals, or an l and a capital, stand side by side, and at least half of its letters
    are capitals. Text in parentheses or brackets does not count. So "A. B." and "Al" stay. In such a line, an l becomes
    I if it is a word or stands beside a capital: "lT", "WlLL", but not "I'll".
    """
    letters = [c for c in re.sub(r"\(.*?\)|\[.*?\]", "", line) if c.isalpha()]
    if not letters or sum(map(str.isupper, letters)) / len(letters) < 0.5 or not CAPITALS.search(line):
        return line
    lowered = MISREAD_I.sub("I", line).lower()
    sentences = (
        re.sub(r"[^\W\d_]", lambda first: first[0].upper(), part, count=1) for part in SENTENCE_END.split(lowered)
    )
    return re.sub(r"\bi\b", "I", "".join(sentences))


def drop_cues(line: str) -> str:
    """Remove a subtitle's non-verbal cues: "(Applause)", "[soft music]", a line all in brackets, and note signs.

    A parenthesis is a cue only if it is short and names a sound; other parentheses are speech, "(which was in 1975)".
    Words sung between note signs are language and stay. A line with no letter or digit left becomes empty.
    """
    bare = CUE.sub("", line)
    return line if bare == line else bare.strip() if any(map(str.isalnum, bare)) else ""


def drop_tags(line: str) -> str:
    """Remove HTML and wiki tags, also escaped ones, but not the text that they enclose.

    "a < b", "<3" and "List<String>" are not tags.
    """
    bare = TAG.sub(lambda tag: " " if tag[1].lower() in BREAKS else "", line)
    return line if bare == line else re.sub(r" {2,}", " ", bare).strip()


def bare_title(line: str) -> str:
    """`= = = T = = =` becomes `T` and keeps its own line."""
    return HEADING.sub(r"\1", line)


def each_line(*edits: Edit) -> Edit:
    """A rule that repeats edits on every line until nothing changes; a line that becomes empty is removed."""

    def settled(line: str) -> str:
        before = None
        while before != line:
            before = line
            for edit in edits:
                line = edit(line)
        return line

    def rule(text: str) -> str:
        lines = ((line, settled(line)) for line in text.split("\n"))
        return "\n".join(new for old, new in lines if new or not old.strip())

    return rule


class BabyLMSource(NamedTuple):
    """The cleaning rules of one source, in the order in which they are applied."""

    published: Sequence[Edit]
    sound: Sequence[Edit]


RULES: dict[str, BabyLMSource] = {
    # Speech of adults to children, one utterance a line, tokenized: "you do ?". No blank lines, no cues.
    "aochildes": BabyLMSource(
        published=[single_spaces, close_punctuation],
        sound=[single_spaces, close_punctuation],
    ),
    # Transcripts of speech, one utterance a line; blank lines separate conversations.
    "bnc_spoken": BabyLMSource(
        published=[single_spaces, close_punctuation, glue_blank_lines],
        sound=[single_spaces, close_punctuation, one_blank_line],
    ),
    # Children's books, a sentence a line, tokenized as in the Penn Treebank: "` It is a Sodno , I suppose ? '", -LRB-.
    "cbt": BabyLMSource(
        published=[single_spaces, close_punctuation, close_apostrophes],
        sound=[single_spaces, close_punctuation, close_clitics],
    ),
    # Tales, one paragraph a line. Parentheses belong to the tale; brackets explain words: "coracles [simple boat]".
    "children_stories": BabyLMSource(published=[], sound=[]),
    # Books in lines of a fixed width, blank lines between paragraphs.
    "gutenberg": BabyLMSource(published=[], sound=[]),
    # Films, one caption a line, with credits ("Subtitles by …") and with cues and notes for the deaf.
    "open_subtitles": BabyLMSource(
        published=[drop_credits],
        sound=[each_line(drop_cues), drop_all_credits],
    ),
    # Captions of lectures with cues, "(Applause)"; many are in capitals with I misread as l.
    "qed": BabyLMSource(
        published=[recase_lines],
        sound=[each_line(str.strip, recase, drop_cues)],
    ),
    # Articles: the title, then one paragraph a line, then a blank line.
    "simple_wikipedia": BabyLMSource(
        published=[glue_blank_lines],
        sound=[each_line(drop_tags), one_blank_line],
    ),
    # Telephone speech, one utterance a line, word for word: "and I like, uh, gymnastics,".
    "switchboard": BabyLMSource(published=[], sound=[]),
    # Articles: `= = = Title = = =`, then paragraphs, with blank lines around.
    "wikipedia": BabyLMSource(
        published=[glue_titles, strip_lines, drop_first_character, glue_blank_lines],
        sound=[each_line(str.strip, drop_tags, bare_title), one_blank_line],
    ),
}


@dataclass(frozen=True)
class Counts:
    """The size of a text."""

    words: int
    """Runs of characters other than white space."""
    bytes: int
    """In UTF-8."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.words + other.words, self.bytes + other.bytes)


def count(text: str) -> Counts:
    """The words and bytes of a text."""
    return Counts(len(text.split()), len(text.encode()))


def source_of(file: Path) -> str:
    """The source of a file: its name up to the first dot, as in `aochildes.train` and `aochildes.dev.txt`.

    Raises:
        UserError: no cleaning rules exist for this source.
    """
    source = file.name.partition(".")[0]
    if source not in RULES:
        raise UserError(f"{file}: there are no cleaning rules for {source!r}; the sources are {', '.join(RULES)}")
    return source


def clean(source: str, text: str, rules: RuleSet = "sound") -> str:
    """Clean a text of a source; `source` is a key of `RULES`."""
    for rule in getattr(RULES[source], rules):
        text = rule(text)
    return text
