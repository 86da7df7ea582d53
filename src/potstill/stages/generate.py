"""generate: let a teacher write the answers that students learn.

Makes `generate/answers.jsonl`, the kept answers with their provenance, and `responses.jsonl`, all responses. A stopped
stage goes on to the same answers (``generation.generate.responses``).
"""

import json

from potstill.console import progress, say
from potstill.data.prompts.render import prompt_ids, template_fingerprint
from potstill.files.atomic import write_text
from potstill.files.jsonl_log import JsonlLog
from potstill.generation.decoding import Decoding, Request
from potstill.generation.filter_answers import kept_answers
from potstill.generation.generate import NamedModel, Response, responses
from potstill.pipeline import artifacts
from potstill.pipeline.work import Made, Work


def run(work: Work) -> Made:
    """Let the teacher answer every training question, and keep the answers that the recipe allows."""
    settings = work.recipe.generate
    assert settings is not None
    teacher, tokenizer = artifacts.teacher(work, settings.by), artifacts.tokenizer(work)
    prompt, key = work.recipe.all_strategies[settings.strategy].teacher, f"strategies.{settings.strategy}.teacher"
    questions = {row["id"]: row for row in artifacts.questions(work, "train")}
    asked = [Request(each, prompt_ids(tokenizer, prompt, row, each, key)) for each, row in questions.items()]
    journal = JsonlLog(work.folder / "responses.jsonl")
    done = [Response(**row) for row in journal.rows]
    total = len(asked) * settings.samples
    with progress(f"{settings.by} answers", total, "answers", len(done)) as advance:
        if len(done) < total:
            model, decoding = teacher.model(), Decoding.of(settings)
            writer, limit = NamedModel(model, tokenizer, f"teacher {settings.by!r}"), "generate.max_new_tokens"
            already = [one.key for one in done]
            for batch in responses(writer, asked, decoding, already, key=limit):
                journal.append(vars(one) for one in batch)
                done += batch
                advance(len(batch))
    references = {each: {"reference": row["reference"]} for each, row in questions.items()}
    fingerprint = template_fingerprint(tokenizer, prompt)
    kept, summary = kept_answers(references, done, settings, fingerprint, by_number=work.recipe.judges_numbers)
    say(f"  {summary}")
    answers = work.folder / "answers.jsonl"
    write_text(answers, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    counts = vars(summary) | {"tokens": sum(one.tokens for one in done)}
    made = f"{summary.kept:,} answers kept of {summary.responses:,} by {settings.by}"
    return Made([answers, journal.file], counts | {"made": made})
