"""The packages of a GPU run: all that the benchmarks import beside torch and transformers, and only what is lacking."""

import subprocess
import sys
from pathlib import Path

from benchmarks.wheels import NOT_IMPORTED, missing, needed

ROOT = Path(__file__).parents[2]


def test_torch_and_transformers_are_not_fetched_but_all_else_is() -> None:
    found = needed(["potstill"])
    assert {"accelerate", "datasets", "pydantic", "jaxtyping", "pyarrow"} <= found.keys()
    assert not {"torch", "transformers", "pytest", "optuna"} & found.keys()


def test_what_no_benchmark_imports_is_not_carried_along() -> None:
    assert not NOT_IMPORTED & needed(["potstill"]).keys()
    modules = ["codecarbon", "gguf", "vl_convert"]
    show = f"import sys, benchmarks.gpu; print([name for name in {modules} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_a_package_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    for name in ("numpy-9.9.9-cp311-cp311-linux_x86_64", "ruamel_yaml-0.1-py3-none-any", "no_such-1-py3-none-any"):
        (tmp_path / f"{name}.whl").touch()
    assert [wheel.name for wheel in missing(tmp_path)] == ["no_such-1-py3-none-any.whl"]
