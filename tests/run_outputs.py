"""What two runs of one recipe must have in common."""

from pathlib import PurePath

from potstill.cli.check import finished_steps
from potstill.pipeline.run_folder import Run

DIFFER = ("log.jsonl", "trials.jsonl", "adapter_config.json")
"""Files that tell durations, or the path of the run."""


def outputs(run: Run) -> dict[str, str]:
    """The digests of all outputs of all steps, but for the report and what differs from run to run."""
    return {
        f"{step}/{name}": made["sha256"]
        for step in finished_steps(run.folder)
        for name, made in run.manifest(step)["outputs"].items()
        if step != "report" and PurePath(name).name not in DIFFER
    }
