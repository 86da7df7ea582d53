"""The laws of the house that a machine can check (CONTRIBUTING.md has them all)."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from potstill.pipeline.graph import STAGES
from potstill.recipe import Recipe

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "potstill"
TIERS = (
    {"errors", "device", "distributed", "console", "cost", "limits"},
    {"files"},
    {"recipe"},
    {"data"},
    {"models"},
    {"losses"},
    {"targets", "metrics", "servers"},
    {"teachers", "generation", "report"},
    {"on_policy"},
    {"students", "training"},
    {"planning"},
    # Everything above is pure: it knows nothing of run folders. Everything below works on them.
    {"pipeline"},
    {"evaluation"},
    {"export"},
    {"stages"},
    {"rehearsal"},
    {"cli"},
    {"__init__", "__main__"},
)
"""Which part may import which: a part imports only from tiers above its own. Packages of one tier do not import each
other; the modules of the first tier may."""
WITHOUT_SECTION = {"report"}
"""Stages that have nothing to choose, and therefore no section in the recipe."""
ONLY_WHERE_USED = {
    "bitsandbytes",
    "codecarbon",
    "libgguf",
    "liger_kernel",
    "llama_cpp",
    "lm_eval",
    "optuna",
    "peft",
    "reasoning_gym",
    "rouge_score",
    "scipy",
    "sentence_transformers",
    "torchao",
    "trackio",
    "triton",
    "vl_convert",
    "vllm",
    "wandb",
    "xllamacpp",
}
"""Packages that are slow to import, or that not everybody has: imported in the function that needs them."""
LIGHT = {"typer"}
"""What `potstill --help` may import besides the standard library."""
MOST_LINES = 400
MOST_LOOSE = 8
"""Modules right under `potstill/`."""
MOST_LINES_OF_A_FUNCTION = 60
MOST_PARAMETERS = 6
OF_THE_WHOLE = {
    "test_architecture.py",
    "test_damaged_runs.py",
    "test_mutated_recipes.py",
    "test_resumed_runs.py",
    "test_format.py",
    "test_ddp.py",
    "test_memory.py",
    "test_precision.py",
    "test_processes.py",
    "test_real_servers.py",
    "test_shipped.py",
    "test_wheel.py",
}
"""Test files that are about several modules, or about what lies beside them."""
DEEPEST_NESTING = 3
"""Blocks (if, for, while, with, try) within each other in a function."""
PUBLIC = {"DistilTrainer.__init__", "distillation_loss", "plan", "policy_gradient_loss", "push", "serve"}
"""Functions that users call, whose parameters are options."""
MOST_IMPORTERS = 1 / 3
"""The share of all modules that may import one module, lest it become the place for everything; words.py is that."""


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file): ast.parse(file.read_text(encoding="utf-8")) for file in sorted(SOURCE.rglob("*.py"))}


def imported(tree: ast.AST, *, at_once: bool = False) -> Iterator[str]:
    """The modules that a module imports, all of them or only those imported with it; never those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in whole)
        elif not (at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from imported(node, at_once=at_once)


@cache
def ours(module: str, *, at_once: bool = False) -> set[str]:
    return {name for name in imported(MODULES[module], at_once=at_once) if name.partition(".")[0] == "potstill"}


def part(module: str) -> str:
    """The folder or the file right under `potstill/` that a module belongs to."""
    return (*module.split("."), "__init__")[1]


def tier(module: str) -> int:
    found = [number for number, parts in enumerate(TIERS) if part(module) in parts]
    assert found, f"{part(module)} is in none of the tiers: say in TIERS where it belongs"
    return found[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    wrong = [name for name in ours(module) if part(name) != part(module) and tier(name) >= max(tier(module), 1)]
    assert not wrong, f"{module} must not import {', '.join(wrong)}"


def test_few_modules_lie_loose():
    assert len(list(SOURCE.glob("*.py"))) <= MOST_LOOSE


def test_nobody_imports_a_stage_but_stages():
    # The runner finds them by their names in the table of stages, and nobody else needs one.
    stage = ("potstill.stages",)
    others = [module for module in MODULES if part(module) != "stages"]
    assert not [module for module in others if any(name.startswith(stage) for name in ours(module))]


def test_no_two_modules_need_each_other():
    TopologicalSorter({module: ours(module) for module in MODULES}).prepare()


def test_every_import_of_ours_is_of_a_module_that_there_is():
    for module in MODULES:
        assert ours(module) <= set(MODULES) | {"potstill.stages"}


def test_optional_and_slow_packages_are_imported_only_where_they_are_used():
    for module, tree in MODULES.items():
        at_once = {name.partition(".")[0] for name in imported(tree, at_once=True)}
        assert not at_once & ONLY_WHERE_USED, module


def test_the_command_line_imports_next_to_nothing():
    import sys

    todo, seen = ["potstill", "potstill.cli.main"], set()
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += ours(module, at_once=True)
    foreign = {name.partition(".")[0] for module in seen for name in imported(MODULES[module], at_once=True)}
    assert foreign - set(sys.stdlib_module_names) - {"potstill"} == LIGHT


def test_only_the_vocabulary_is_imported_everywhere():
    for hub in set(MODULES) - {"potstill.errors"}:
        importers = [module for module in MODULES if hub in ours(module)]
        assert len(importers) <= MOST_IMPORTERS * len(MODULES), hub


def test_the_vocabulary_itself_imports_nothing():
    assert list(imported(MODULES["potstill.errors"])) == []


@pytest.mark.parametrize("folder", ["src", "tests"])
def test_no_file_is_long(folder):
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in (ROOT / folder).rglob("*.py")}
    assert lines
    assert not {str(file): count for file, count in lines.items() if count > MOST_LINES}


def test_every_module_says_what_it_is():
    silent = [module for module, tree in MODULES.items() if tree.body and not ast.get_docstring(tree)]
    assert not silent


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
def test_a_stage_is_found_in_one_guess(stage):
    assert f"potstill.stages.{stage}" in MODULES
    assert (stage in Recipe.model_fields) != (stage in WITHOUT_SECTION)
    assert (ROOT / "tests" / "stages" / f"test_{stage}.py").is_file()
    functions = {node.name for node in MODULES[f"potstill.stages.{stage}"].body if isinstance(node, ast.FunctionDef)}
    assert "run" in functions, "what the runner calls"


def test_every_module_among_the_stages_is_one_and_every_section_of_a_recipe_is_read():
    names = {stage.name for stage in STAGES}
    assert {module.rpartition(".")[2] for module in MODULES if part(module) == "stages"} == names
    others = {"about", "seeds", "experiments", "facts", "precision", "distributed"}
    assert set(Recipe.model_fields) == names - WITHOUT_SECTION | others


def functions(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function with its class's name before its own."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield f"{owner}{node.name}", node
        yield from functions(node, f"{node.name}." if isinstance(node, ast.ClassDef) else owner)


def nesting(node: ast.AST) -> int:
    """How many blocks of a function lie within each other; an `elif` lies beside its `if`."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        beside = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        block = isinstance(child, ast.If | ast.For | ast.While | ast.With | ast.Try) and not beside
        deepest = max(deepest, nesting(child) + block)
    return deepest


@pytest.mark.parametrize("module", MODULES)
def test_functions_fit_a_screen(module):
    for name, function in functions(MODULES[module]):
        arguments = function.args
        given = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        parameters = [one for one in given if one not in ("self", "cls")]
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < MOST_LINES_OF_A_FUNCTION, name
        assert len(parameters) <= MOST_PARAMETERS or name in PUBLIC, name
        assert nesting(function) <= DEEPEST_NESTING, name


def test_no_two_classes_or_types_share_one_name():
    homes: dict[str, list[str]] = {}
    for module, tree in MODULES.items():
        assert isinstance(tree, ast.Module)
        for node in tree.body:
            aliases = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [alias.id for alias in aliases if isinstance(alias, ast.Name)]
            names = [name for name in names if name.strip("_")[0].isupper() and not name.isupper()]
            names += [node.name] if isinstance(node, ast.ClassDef) else []
            for name in names:
                homes.setdefault(name.strip("_"), []).append(module)
    assert not {name: modules for name, modules in homes.items() if len(modules) > 1}


def test_every_test_file_is_where_its_module_is():
    tests, orphans = ROOT / "tests", []
    for file in tests.rglob("test_*.py"):
        folder = file.relative_to(tests).parent
        if (
            folder.parts[:1] in [("benchmarks",), ("experiments",), ("examples",), ("docs",)]
            or file.name in OF_THE_WHOLE
        ):
            continue
        stem = file.stem.removeprefix("test_")
        # `test_trainer_ranks.py` is one of several files about `trainer.py`.
        names = [stem.rsplit("_", cut)[0] for cut in range(stem.count("_") + 1)]
        if not any((SOURCE / folder / f"{name}.py").is_file() for name in names):
            orphans.append(str(file.relative_to(tests)))
    assert not orphans


def test_no_test_counts_seconds():
    # A busy machine would fail it. A test waits for a state, and `timeout` in pyproject.toml ends a test that hangs.
    clocks = re.compile(r"\btime\.(sleep|time|monotonic|perf_counter|process_time)\(|\btimeout=|mark\.timeout")
    files = [file for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__)]
    assert [file for file in files if clocks.search(file.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("where", ["src", "docs", "README.md"])
def test_what_users_get_names_no_data_that_only_we_have(where):
    files = [ROOT / where] if (ROOT / where).is_file() else [one for one in (ROOT / where).rglob("*") if one.is_file()]
    texts = {
        file: file.read_text(encoding="utf-8", errors="ignore") for file in files if "__pycache__" not in file.parts
    }
    assert [str(file.relative_to(ROOT)) for file, text in texts.items() if "../shared" in text] == []
