"""Three lines of Python load a student from where it lies."""

import ast

import pytest

from potstill.report.reuse import StudentFolder


@pytest.mark.parametrize("folder", ["runs/quickstart/distil/seed-0/student", 'runs/dön\'t "quote" \\me/student'])
def test_the_lines_are_python_and_name_the_folder(folder):
    lines = StudentFolder("student", folder, False).lines
    named = [node.value for node in ast.walk(ast.parse(lines)) if isinstance(node, ast.Constant)]
    assert named == [folder, folder]
    assert len(lines.splitlines()) == 3
