"""The SkyPilot task: the keys that SkyPilot 0.14 knows, and a command that potstill and torchrun take."""

import shlex
from pathlib import Path

import yaml
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).parents[2]
TASK = yaml.safe_load((ROOT / "examples" / "skypilot.yaml").read_text())


def test_its_keys_are_skypilots():
    assert TASK.keys() == {"name", "resources", "num_nodes", "workdir", "envs", "volumes", "setup", "run"}
    assert TASK["resources"].keys() == {"accelerators", "use_spot", "job_recovery"}
    assert TASK["resources"]["job_recovery"] == {"recover_on_exit_codes": [130, 143]}
    assert TASK["volumes"] == {"/runs": "potstill-runs"}
    assert isinstance(TASK["num_nodes"], int)


def test_it_installs_the_checkout_that_it_copies():
    # No package index has potstill.
    assert TASK["setup"].splitlines() == ["pip install ."]
    assert (ROOT / TASK["workdir"] / "pyproject.toml").is_file()


def test_torchrun_takes_its_command():
    text = TASK["run"].replace("\\\n", " ")
    # Words in the place of SkyPilot's variables.
    for name, value in {"NUM_NODES": "2", "NODE_RANK": "1", "NUM_GPUS_PER_NODE": "8"}.items():
        text = text.replace(f"$SKYPILOT_{name}", value)
    text = text.replace('"$(echo "$SKYPILOT_NODE_IPS" | head -n 1)"', "10.0.0.1")
    command, *arguments = shlex.split(text)
    parsed = get_args_parser().parse_args(arguments)
    assert command == "torchrun"
    assert (parsed.nnodes, parsed.node_rank, parsed.nproc_per_node) == ("2", 1, "8")
    assert (parsed.master_addr, parsed.shutdown_timeout) == ("10.0.0.1", 300)
    assert parsed.module
    assert [parsed.training_script, *parsed.training_script_args] == [
        "potstill",
        "run",
        "$RECIPE",
        "--run-dir",
        "/runs/$RUN",
    ]
