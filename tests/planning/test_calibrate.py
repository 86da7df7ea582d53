"""Real steps: they scale the forecast, and their memory lies inside it."""

from dataclasses import replace

import minimal
from potstill.planning import machine as machines
from potstill.planning.calibrate import STEPS, calibrate
from potstill.planning.duration import seconds_of
from potstill.planning.jobs import TrainingJob
from potstill.planning.memory import memory_of
from potstill.planning.plan import jobs_in, make_plan
from potstill.recipe.step import Step
from tiny import llama, save_model

FIELDS = {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 704}


def test_the_memory_of_real_steps_lies_inside_the_forecast(tmp_path):
    save_model(llama(), tmp_path / "teacher")
    config = {**FIELDS, "num_attention_heads": 4, "max_position_embeddings": 128}
    recipe = minimal.recipe(
        tmp_path,
        f"teachers.t.model={tmp_path / 'teacher'}",
        f"student={{start: scratch, config: {config}}}",
        "distil.training={max_steps: 40, per_device_train_batch_size: 16}",
        "corpus.sequence_length=128",
        "capture={keep: top_k, k: 8}",
        "precision=fp32",
        "facts={}",
    )
    here = machines.this_machine(tmp_path, (256, 704))
    steps = [Step("student"), Step("distil", 0)]
    # The process of all tests has more than a run's, and the first steps load what later ones have.
    calibrate(jobs_in(recipe, steps, here), here)
    here = replace(here, baseline=machines._baseline())
    jobs = jobs_in(recipe, steps, here)
    scales = calibrate(jobs, here)
    (job,) = (one for one in jobs if isinstance(one, TrainingJob))
    assert set(scales.reading) == {"t", "student"}
    assert scales.memory["distil"] in memory_of([job], here).on_host
    assert STEPS == 3
    before, after = seconds_of(job, here), seconds_of(job, here, scales)
    assert after.expected == before.expected * scales.training["distil"]
    assert after.high / after.low < before.high / before.low
    measured = make_plan(recipe, steps, here, scales=scales).steps[-1]
    assert measured.memory.on_host.expected >= scales.memory["distil"]
