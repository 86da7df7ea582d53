"""Data sets: stand-ins of the hub's data sets and of named data, with the same names, files, columns and compression.

The columns are those that the data sets' cards and lm-eval's task files name. The rows are made up.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.rehearsal.story_model import story_model_files
from potstill.rehearsal.words import every_word, lexicon, paragraph, sentence

MakesRow = Callable[[random.Random, int], dict[str, Any]]
"""Makes a row of its number."""

ROWS, TEXT_ROWS = 24, 400
"""The rows of a file: of questions and of text."""
SPLITS = ("train", "validation", "test")
BLIMP = [
    "adjunct_island",
    "anaphor_gender_agreement",
    "anaphor_number_agreement",
    "animate_subject_passive",
    "animate_subject_trans",
    "causative",
    "complex_NP_island",
    "coordinate_structure_constraint_complex_left_branch",
    "coordinate_structure_constraint_object_extraction",
    "determiner_noun_agreement_1",
    "determiner_noun_agreement_2",
    "determiner_noun_agreement_irregular_1",
    "determiner_noun_agreement_irregular_2",
    "determiner_noun_agreement_with_adj_2",
    "determiner_noun_agreement_with_adj_irregular_1",
    "determiner_noun_agreement_with_adj_irregular_2",
    "determiner_noun_agreement_with_adjective_1",
    "distractor_agreement_relational_noun",
    "distractor_agreement_relative_clause",
    "drop_argument",
    "ellipsis_n_bar_1",
    "ellipsis_n_bar_2",
    "existential_there_object_raising",
    "existential_there_quantifiers_1",
    "existential_there_quantifiers_2",
    "existential_there_subject_raising",
    "expletive_it_object_raising",
    "inchoative",
    "intransitive",
    "irregular_past_participle_adjectives",
    "irregular_past_participle_verbs",
    "irregular_plural_subject_verb_agreement_1",
    "irregular_plural_subject_verb_agreement_2",
    "left_branch_island_echo_question",
    "left_branch_island_simple_question",
    "matrix_question_npi_licensor_present",
    "npi_present_1",
    "npi_present_2",
    "only_npi_licensor_present",
    "only_npi_scope",
    "passive_1",
    "passive_2",
    "principle_A_c_command",
    "principle_A_case_1",
    "principle_A_case_2",
    "principle_A_domain_1",
    "principle_A_domain_2",
    "principle_A_domain_3",
    "principle_A_reconstruction",
    "regular_plural_subject_verb_agreement_1",
    "regular_plural_subject_verb_agreement_2",
    "sentential_negation_npi_licensor_present",
    "sentential_negation_npi_scope",
    "sentential_subject_island",
    "superlative_quantifiers_1",
    "superlative_quantifiers_2",
    "tough_vs_raising_1",
    "tough_vs_raising_2",
    "transitive",
    "wh_island",
    "wh_questions_object_gap",
    "wh_questions_subject_gap",
    "wh_questions_subject_gap_long_distance",
    "wh_vs_that_no_gap",
    "wh_vs_that_no_gap_long_distance",
    "wh_vs_that_with_gap",
    "wh_vs_that_with_gap_long_distance",
]


@dataclass(frozen=True)
class DataSet:
    """A data set of the hub."""

    row: MakesRow
    files: Mapping[str, tuple[str, str]]
    """The configuration and the split of each file."""
    rows: int = ROWS

    def save(self, folder: Path, seed: int) -> None:
        """Write the repository: its files, and a card that names its configurations."""
        for number, file in enumerate(self.files):
            draw = random.Random(1000 * seed + number)
            write_rows(folder / file, [self.row(draw, at) for at in range(self.rows)])
        (folder / "README.md").write_text(f"---\n{json.dumps({'configs': self._configs()})}\n---\n", encoding="utf-8")

    def _configs(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, list[str]]] = {}
        for file, (config, split) in self.files.items():
            found.setdefault(config, {}).setdefault(split, []).append(file)
        return [
            {"config_name": config, "data_files": [{"split": one, "path": paths} for one, paths in splits.items()]}
            for config, splits in found.items()
        ]


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table, .parquet or .jsonl by its ending."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def article_line(draw: random.Random, number: int) -> dict[str, Any]:
    """A line of WikiText: a heading, an empty line or a paragraph."""
    kind = number % 8
    heading = f" = {' = ' * (kind == 4)}{sentence(draw)[:-1]}{' = ' * (kind == 4)} = \n"
    return {"text": heading if kind in (1, 4) else "" if kind in (0, 2) else f" {paragraph(draw, 9)} \n"}


def document(draw: random.Random, number: int) -> dict[str, Any]:
    """A document of several paragraphs."""
    return {"text": "\n\n".join(paragraph(draw, draw.randint(3, 9)) for _ in range(draw.randint(1, 6)))}


def problem(draw: random.Random, number: int) -> dict[str, Any]:
    """A problem of GSM8K and its solution."""
    who, what = draw.choice(lexicon()).capitalize(), draw.choice(lexicon())
    first, more = draw.randint(2, 900), draw.randint(2, 90)
    added = f"{who} has {first} + {more} = <<{first}+{more}={first + more}>>{first + more} {what}."
    return {
        "question": f"{who} has {first} {what}, and finds {more} more. How many {what} has {who} now?",
        "answer": f"{added}\n#### {first + more}",
    }


def conversation(draw: random.Random, number: int) -> dict[str, Any]:
    """A conversation of UltraChat, mostly of more than two thousand tokens. One in ten has a turn without a word."""
    turns = 2 * draw.randint(3, 6)
    said = [paragraph(draw, draw.randint(14, 30) if turn % 2 else draw.randint(1, 4)) for turn in range(turns)]
    if number % 10 == 9:
        said[-1] = ""
    messages = [{"content": text, "role": ("user", "assistant")[turn % 2]} for turn, text in enumerate(said)]
    return {"prompt": said[0], "prompt_id": f"{draw.getrandbits(256):064x}", "messages": messages}


def minimal_pair(draw: random.Random, number: int) -> dict[str, Any]:
    """A grammatical sentence, and the same with its words turned."""
    good = sentence(draw)
    bad = " ".join(reversed(good[:-1].split())) + "."
    methods = dict.fromkeys(("simple_LM_method", "one_prefix_method", "two_prefix_method"), True)
    kind = {"field": "syntax", "linguistics_term": "order", "UID": "order", "pairID": str(number)}
    return {"sentence_good": good, "sentence_bad": bad, **kind, **methods, "lexically_identical": True}


def _piqa(draw: random.Random, number: int) -> dict[str, Any]:
    return {"goal": sentence(draw), "sol1": sentence(draw), "sol2": sentence(draw), "label": number % 2}


def _winogrande(draw: random.Random, number: int) -> dict[str, Any]:
    words = sentence(draw).split()
    options = {f"option{place}": draw.choice(lexicon()).capitalize() for place in (1, 2)}
    return {"sentence": " ".join([*words[:2], "_", *words[2:]]), **options, "answer": str(1 + number % 2)}


def _last_word(draw: random.Random, number: int) -> dict[str, Any]:
    return {"text": paragraph(draw, 4).rstrip(".?!")}


def _arc(draw: random.Random, number: int) -> dict[str, Any]:
    choices = {"text": [sentence(draw) for _ in range(4)], "label": ["A", "B", "C", "D"]}
    return {"id": f"question-{number}", "question": sentence(draw), "choices": choices, "answerKey": "ABCD"[number % 4]}


def _sciq(draw: random.Random, number: int) -> dict[str, Any]:
    words = {name: draw.choice(lexicon()) for name in ("distractor3", "distractor1", "distractor2", "correct_answer")}
    return {"question": sentence(draw), **words, "support": paragraph(draw, 2)}


def _wsc(draw: random.Random, number: int) -> dict[str, Any]:
    words = sentence(draw).split()
    spans = {"span1_index": 0, "span2_index": 3, "span1_text": words[0], "span2_text": words[3]}
    return {"text": " ".join(words), **spans, "idx": number, "label": number % 2}


def _files(config: str, folder: str, *splits: str, parts: int = 1) -> dict[str, tuple[str, str]]:
    """Parquet files as the hub names them."""
    return {
        f"{folder}/{split}-{part:05}-of-{parts:05}.parquet": (config, split)
        for split in splits or SPLITS
        for part in range(parts)
    }


def _wikitext() -> dict[str, tuple[str, str]]:
    small, large = "wikitext-2-raw-v1", "wikitext-103-raw-v1"
    train = _files(large, large, "train", parts=2)
    return _files(small, small) | train | _files(large, large, "validation", "test")


ULTRACHAT = {
    "data/train_sft-00000-of-00003-a3ecf92756993583.parquet": ("default", "train_sft"),
    "data/train_sft-00001-of-00003-0a1804bcb6ae68c6.parquet": ("default", "train_sft"),
    "data/train_sft-00002-of-00003-ee46ed25cfae92c6.parquet": ("default", "train_sft"),
    "data/test_sft-00000-of-00001-f7dfac4afe5b93f4.parquet": ("default", "test_sft"),
}

HUB_DATA: Mapping[str, DataSet] = {
    "Salesforce/wikitext": DataSet(article_line, _wikitext(), TEXT_ROWS),
    "Skylion007/openwebtext": DataSet(document, _files("plain_text", "data", "train", parts=4), TEXT_ROWS // 4),
    "EleutherAI/the_pile_deduplicated": DataSet(document, _files("default", "data", "train", parts=2), TEXT_ROWS // 2),
    "openai/gsm8k": DataSet(
        problem,
        _files("main", "main", "train", "test") | _files("socratic", "socratic", "train", "test"),
        TEXT_ROWS,
    ),
    "HuggingFaceH4/ultrachat_200k": DataSet(conversation, ULTRACHAT),
    "nyu-mll/blimp": DataSet(
        minimal_pair, {name: place for one in BLIMP for name, place in _files(one, one, "train").items()}
    ),
    "EleutherAI/lambada_openai": DataSet(_last_word, {"data/lambada_test_en.jsonl": ("default", "test")}),
    "baber/piqa": DataSet(_piqa, _files("default", "data")),
    "allenai/winogrande": DataSet(_winogrande, _files("winogrande_xl", "winogrande_xl")),
    "allenai/ai2_arc": DataSet(_arc, _files("ARC-Challenge", "ARC-Challenge") | _files("ARC-Easy", "ARC-Easy")),
    "allenai/sciq": DataSet(_sciq, _files("default", "data")),
    "aps/super_glue": DataSet(_wsc, _files("wsc.fixed", "wsc.fixed")),
}
"""The data sets of the shipped recipes and of their tasks."""

TASKS = ("piqa", "winogrande", "lambada_openai", "arc_challenge", "arc_easy", "sciq", "wsc")
"""The tasks of lm-eval whose data is in HUB_DATA."""

BABYLM_LINES = 120


def babylm_files() -> Iterator[tuple[str, bytes]]:
    """BabyLM's files, with what its cleaning rules look for: name and content."""
    names = (
        "aochildes bnc_spoken cbt children_stories gutenberg open_subtitles qed simple_wikipedia switchboard wikipedia"
    )
    for split in ("train", "dev"):
        draw = random.Random(split)
        rest = [*every_word(draw)] if split == "train" else []
        for number, name in enumerate(names.split()):
            lines = [paragraph(draw, draw.randint(1, 3)) for _ in range(BABYLM_LINES)] + rest[number::10]
            if name in ("wikipedia", "simple_wikipedia"):
                lines = [f"= = = {lines[0][:20]} = = =\n", *lines[:60], "\n", *lines[60:]]
            elif name == "qed":
                lines = [*(line.upper() for line in lines[:20]), "(Applause)", "...", *lines[20:]]
            elif name == "open_subtitles":
                lines = ["Subtitles by nobody", *lines]
            elif name in ("aochildes", "bnc_spoken", "cbt"):
                lines = [line.replace(".", " .").replace(",", " ,") for line in lines]
            yield f"{split}/{name}.{split}", ("\n".join(lines) + "\n").encode()


NAMED_FILES: Mapping[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
    "babylm-10m": babylm_files,
    "stories260k": story_model_files,
}
"""The named data that is no data set of the hub: its files, by their names below its repository, or below its folder if
it has none."""
