"""float64 is asked for in one place, which takes it to the CPU: no device of Apple's, and few of Intel's, has it."""

import ast
from pathlib import Path

import pytest
import torch
import turpentine
from turpentine.pipeline.maths.double import double

ROOT = Path(turpentine.__file__).parent
HOME = ROOT / "pipeline" / "maths" / "double.py"
FILES = [
    file
    for folder in ("pipeline", "comfy_nodes", "ui")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if file != HOME and "bundled" not in file.parts
]
"""The bundled models were made on a CPU."""


def is_float64(node):
    return isinstance(node, ast.Attribute) and node.attr in ("float64", "double")


def asked_for_float64(source):
    """Lines that turn a tensor of any device into float64, or make one on a device that is named."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        named = {each.arg: each.value for each in node.keywords}
        converts = called == "double" or (
            called in ("to", "type") and any(map(is_float64, [*node.args, *named.values()]))
        )
        if converts or ("device" in named and is_float64(named.get("dtype"))):
            yield node.lineno


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x.double()", True),
        ("x.to(torch.float64)", True),
        ("x.to('cpu', torch.float64)", True),
        ("x.to(device, dtype=torch.float64)", True),
        ("torch.zeros(3, dtype=torch.float64, device=x.device)", True),
        ("torch.zeros(3, dtype=torch.float64)", False),
        ("double(x)", False),
        ("x.to(torch.float32)", False),
    ],
)
def test_what_is_looked_for(source, found):
    assert bool([*asked_for_float64(source)]) is found


def test_nobody_else_asks_for_float64():
    assert not {str(file): lines for file in FILES if (lines := [*asked_for_float64(file.read_text(encoding="utf-8"))])}


def test_double_gives_up_device_and_graph():
    found = double(torch.ones(2, requires_grad=True))
    assert (found.dtype, found.device.type, found.requires_grad) == (torch.float64, "cpu", False)
