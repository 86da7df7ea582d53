"""Cleaning rules: hand-written examples for each source, properties of all rules, and the published run's figures."""

import re
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from potstill.data.babylm_cleaning import RULES, Counts, clean, count, source_of
from potstill.errors import UserError

BABYLM = Path(__file__).parents[3] / "shared" / "data" / "babylm_10m"
SETS = ("published", "sound")
ARTICLES = "\n = = = Cats & Co. = = =\n\n Cats<br />purr. \n They sleep.\n\n\n= = = Dogs = = =\nDogs bark.\n"


@pytest.mark.parametrize("rules", SETS)
@pytest.mark.parametrize("source", ["aochildes", "cbt", "bnc_spoken"])
def test_tokenized_speech_gets_its_spaces_right(source, rules):
    assert clean(source, "you \t do\u00a0 ?\noh , no ; go ! .\n", rules) == "you do?\noh, no; go!.\n"


@pytest.mark.parametrize(
    ("raw", "published", "sound"),
    [
        ("the king 's foot", "the king's foot", "the king's foot"),
        ("I ’ve n't", "I’ve n't", "I’ve n't"),
        ("said ' no '", "said ' no '", "said ' no '"),
        ("two of 'em", "two of'em", "two of 'em"),
        ("rock 'n' roll", "rock'n' roll", "rock 'n' roll"),
        ("I 'd 've", "I'd 've", "I'd've"),
    ],
)
def test_cbt_apostrophes(raw, published, sound):
    assert clean("cbt", raw, "published") == published
    assert clean("cbt", raw, "sound") == sound


def test_an_apostrophe_is_left_alone_elsewhere():
    for source in set(RULES) - {"cbt"}:
        assert clean(source, "the king 's foot\n").rstrip("\n") == "the king 's foot"


@pytest.mark.parametrize("rules", SETS)
@pytest.mark.parametrize("source", ["children_stories", "gutenberg", "switchboard"])
def test_sources_that_stay_as_they_are(source, rules):
    text = " 83 Hans  in Luck \n\n\n“If , then [as] (said)” <laughter>\t♪\u00a0\nSUBTITLE\n = = = T = = =\n"
    assert clean(source, text, rules) == text


def test_conversations_stay_apart():
    text = "Yes .\nNo .\n\nHello .\n\n \nHi .\n"
    assert clean("bnc_spoken", text, "published") == "Yes.\nNo.Hello. \nHi.\n"
    assert clean("bnc_spoken", text) == "Yes.\nNo.\n\nHello.\n\nHi.\n"


def test_simple_wikipedia_keeps_articles_apart():
    text = "Cat\nIt purrs.\n\nDog\nIt barks.\n\n"
    assert clean("simple_wikipedia", text, "published") == "Cat\nIt purrs.Dog\nIt barks."
    assert clean("simple_wikipedia", text) == text


def test_wikipedia_keeps_titles_and_articles_apart():
    # In the published code, the second title runs into its paragraph, and both run into the article before.
    published = "Cats & Co.\nCats<br />purr.\nThey sleep.\nDogsDogs bark."
    assert clean("wikipedia", ARTICLES, "published") == published
    assert clean("wikipedia", ARTICLES) == "Cats & Co.\n\nCats purr.\nThey sleep.\n\nDogs\nDogs bark.\n"


@pytest.mark.parametrize("source", ["wikipedia", "simple_wikipedia"])
@pytest.mark.parametrize(
    ("raw", "mended"),
    [
        ("H<sub>2</sub>O", "H2O"),
        ("one<br/>two <BR> three", "one two three"),
        ('a <ref name="x">note</ref> b', "a note b"),
        ("a &lt;templatestyles src=x.css /&gt; b", "a b"),
        ("<<b>i>x</i>", "x"),
        ("a < b and b > c", "a < b and b > c"),
        ("if a <b and c> d", "if a <b and c> d"),
        ("I <3 List<String> &amp; all", "I <3 List<String> &amp; all"),
    ],
)
def test_tags_and_nothing_but_tags_leave_wikipedia(source, raw, mended):
    assert clean(source, f"{raw}\n") == f"{mended}\n"
    assert raw in clean(source, f"\n{raw}\n", "published")


def test_a_line_of_tags_alone_is_gone_and_makes_no_paragraph():
    assert clean("simple_wikipedia", "One.\n<div>\nTwo.\n</div>\n") == "One.\nTwo.\n"


@pytest.mark.parametrize("rules", SETS)
def test_credits_leave_subtitles(rules):
    text = "Run!\nSubtitles by Ann\n(english SUBTITLES)\nWhy?\n"
    assert clean("open_subtitles", text, rules) == "Run!\nWhy?\n"


def test_a_credit_in_the_last_line():
    assert clean("open_subtitles", "Run!\nSubtitles by Ann", "published") == "Run!\nSubtitles by Ann"
    assert clean("open_subtitles", "Run!\nSubtitles by Ann") == "Run!\n"


@pytest.mark.parametrize("source", ["open_subtitles", "qed"])
@pytest.mark.parametrize(
    ("raw", "mended"),
    [
        ("(Applause)", None),
        ("- [Music]", None),
        ("[ Upbeat music playing ]", None),
        ("[a door slams]", None),
        ("♪ ♪", None),
        ("♪ Row your boat ♪", "Row your boat"),
        ("So (Laughter) we went (audience laughs loudly).", "So we went."),
        ("(he sighs...) No.", "No."),
        ("Born (which was in 1975) here", "Born (which was in 1975) here"),
        ("(That is what I said.)", "(That is what I said.)"),
        (
            "the arts (music, theatre) and [the] (music industry)",
            "the arts (music, theatre) and [the] (music industry)",
        ),
        ("We applaud the music", "We applaud the music"),
    ],
)
def test_cues_and_nothing_but_cues_leave_subtitles(source, raw, mended):
    assert clean(source, f"Before\n{raw}\nAfter\n") == "\n".join(filter(None, ["Before", mended, "After", ""])) + "\n"
    assert raw in clean(source, f"Before\n{raw}\nAfter\n", "published")


@pytest.mark.parametrize(
    ("raw", "published", "sound"),
    [
        ("WHAT lS THlS? GO!", "What is this? Go!", "What is this? Go!"),
        ("- NOW I'll GO ON", "- now i'ii go on", "- Now I'll go on"),
        ("(Narrator) YES. AND I", "(narrator) yes. And i", "(Narrator) yes. And I"),
        # Half of the characters, or half of the letters.
        ("A B 1 9 7 5", "A B 1 9 7 5", "A B 1 9 7 5"),
        ("OK 1 9 7 5 8", "OK 1 9 7 5 8", "Ok 1 9 7 5 8"),
        ("AB cd", "AB cd", "Ab cd"),
        ("OK [which I say]", "OK [which I say]", "Ok [which I say]"),
        ("NASA is here", "NASA is here", "NASA is here"),
        ("Al", "Ai", "Al"),
    ],
)
def test_qed_lines_in_capitals_become_sentences(raw, published, sound):
    assert clean("qed", f"{raw}\n", "published") == published
    assert clean("qed", f" {raw} \n") == f"{sound}\n"


@pytest.mark.parametrize("rules", SETS)
@pytest.mark.parametrize("line", ["...", "(Which)", "(A) ?!", "", "?"])
def test_qed_lines_without_letters_are_no_reason_to_stop(rules, line):
    assert clean("qed", f"a\n{line}\nb", rules) == f"a\n{line}\nb"


BITS = ["l", "I", "AB", "c", "ß", " ", "\u00a0", "\n", "\n\n", ".", "?", "(", ")", "[", "]", "music", "♪", "'s", "' "]
BITS += ["<", "&lt;", "b", "br", "/", ">", "= = = ", " = = =", "title", "sub", "-", "\u2028", "laughs"]
TEXTS = st.lists(st.sampled_from(BITS), max_size=16).map("".join) | st.text(max_size=40)


@pytest.mark.parametrize("source", RULES)
@given(text=TEXTS)
@example(text="sub[music]title")
@example(text="((music) c) AB")
@example(text="= = = = = = T = = = = = =")
@example(text="[MUSlC] lL")
def test_what_is_cleaned_soundly_stays_as_it_is(source, text):
    once = clean(source, text)
    assert clean(source, once) == once


@pytest.mark.parametrize("source", RULES)
@given(words=st.lists(st.text("abcdefghijkmnop", min_size=1), min_size=1))
def test_plain_words_are_never_lost(source, words):
    assert clean(source, " ".join(words) + "\n").split() == words


@pytest.mark.parametrize("source", RULES)
@given(paragraphs=st.lists(st.text("abc", min_size=1), min_size=1))
def test_paragraphs_are_never_glued(source, paragraphs):
    text = "\n\n".join(paragraphs) + "\n"
    assert clean(source, text) == text


def test_words_and_bytes():
    assert count(" two\u00a0wörds \n") == Counts(words=2, bytes=14)
    assert count("") == Counts(0, 0)


@pytest.mark.parametrize("name", ["cbt.train", "cbt.dev", "cbt.test", "cbt.txt", "cbt.train.txt", "cbt"])
def test_a_source_is_found_by_the_name_of_its_file(name):
    assert source_of(Path("some.where") / name) == "cbt"


def test_a_source_without_rules_is_refused():
    told = "childes.train: there are no cleaning rules for 'childes'; the sources are aochildes, bnc_spoken, "
    with pytest.raises(UserError, match=re.escape(told)):
        source_of(Path("childes.train"))


PUBLISHED = {
    # The numbers of characters before and after are those in the authors' notebook; the SHA-256 is that of the output
    # of the authors' script.
    "train/aochildes.train": (1900547, 1820547, "92d88c4d304e6b890d7f4023588b7bac7232e0d379dd3d5da1c881283670a35f"),
    "train/cbt.train": (2627694, 2554890, "80028cba1340d82bbfdb45b22c0da8b74c5e982969456a3413c8d510da0c7afd"),
    "train/children_stories.train": (
        1797174,
        1797174,
        "a54fb0c4012b5a604a7906328935dd0d4ddea19e9c4a94e340e14f43bec4b924",
    ),
    "train/switchboard.train": (601050, 601050, "637713b8a5bb960dec7b581166213e72ec270c2002807219595b41e94ca9e077"),
    "dev/aochildes.dev": (1777198, 1707198, "d47a9c76cc117b7161348bed8694383b0c8012e647d9fe87b3b53c9074da31df"),
    "dev/cbt.dev": (1182610, 1152267, "2e6e5d65954a06829358a09b6dba04b903ddd311726b7462694963834bbeb6ec"),
    "dev/children_stories.dev": (1382334, 1382334, "392db320a3939432fd046a36a91139a6bfaf0d9caae62fcee9dd688217ff6032"),
    "dev/switchboard.dev": (670013, 670013, "79af957ba53629be2fb9db09ff012f400198573a7750c9d3aded173d7fcfba46"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_files_become_the_published_ones_byte_for_byte(name):
    file = BABYLM / name
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    before, after, digest = PUBLISHED[name]
    raw = file.read_text(encoding="utf-8")
    text = clean(source_of(file), raw, "published")
    assert (len(raw), len(text)) == (before, after)
    assert sha256(text.encode()).hexdigest() == digest


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_files_cleaned_soundly_keep_their_lines(name):
    file = BABYLM / name
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    raw = file.read_text(encoding="utf-8")
    text = clean(source_of(file), raw)
    assert text.count("\n") == raw.count("\n")
    assert clean(source_of(file), text) == text
