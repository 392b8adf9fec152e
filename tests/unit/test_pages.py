"""What the pages tell a reader to type: every command by its real parser, every option, every Python example."""

import ast
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
import turpentine
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser
from turpentine.pipeline.schema.results import AuditResult, Interval, Record, Results

from ..support import pages, programs

ROOT = Path(turpentine.__file__).parent
COMMANDS = [(pages.name(page), command) for page in pages.PAGES for command in pages.commands(page)]
CODE = [file for folder in ("pipeline", "comfy_nodes", "ui", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
GIVEN = {"docs/diffusers.md": ["options"], "docs/models.md": ["pipe"]}
"""What the text of a page says in words, before its examples use it."""
OTHERS = {"--alpha", "--m", "--graphs"}
"""Options of the paper's published code, and of the script that draws the graphs of docs/comfyui.md."""
RUN_BY = {
    "README.md": "test_readme.py",
    "assets/digits/README.md": "test_cards.py",
    "assets/tiny-canvas-dit/README.md": "test_cards.py",
    "assets/tiny-canvas/README.md": "test_cards.py",
    "docs/app.md": "test_app.py",
    "docs/diffusers.md": "test_diffusers_page.py",
    "docs/formats.md": "test_formats_page.py",
    "docs/models.md": "test_models_page.py",
}
"""Page with Python -> the test in tests/e2e that runs it."""
OPTION = re.compile(r"(?<![\w(-])--[a-z][\w-]*(?!\w*:)")  # and no variable of CSS
every_page = pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)


@cache
def known_options() -> set[str]:
    """The options of all our programs, and of those that start several processes of ours."""
    known = {option for command in programs.commands() for option in programs.options(["turpentine", command])}
    known.update(option for module in programs.modules() for option in programs.options([module]))
    for parser in (launch_command_parser(), get_args_parser()):
        known.update(option for action in parser._actions for option in action.option_strings)
    return known


def records_in(annotation):
    """The records that a field's type holds, and those inside them; an interval needs no words of its own."""
    own = isinstance(annotation, type) and issubclass(annotation, Record)
    parts = [info.annotation for info in annotation.model_fields.values()] if own else get_args(annotation)
    found = {record for part in parts for record in records_in(part)} | ({annotation} if own else set())
    return found - {Interval}


def test_the_page_of_results_names_every_key():
    told = {}
    for line in (ROOT / "docs" / "results-json.md").read_text(encoding="utf-8").splitlines():
        keys, _, text = line.strip("| ").partition(" | ")
        for key in re.findall(r"`(?:….)?(\w+)", keys):
            told[key] = {*told.get(key, ()), *re.findall(r"`(\w+)`", text)}
    lacking = set(AuditResult.model_fields) - told["audits"]
    for owner in (Results, AuditResult):
        for key, info in owner.model_fields.items():
            records = records_in(info.annotation) if key != "audits" else ()
            lacking |= {f"{key}.{name}" for record in records for name in {*record.model_fields} - told.get(key, set())}
            lacking |= set() if key in told else {key}
    assert not lacking


def test_there_are_commands():
    assert len(COMMANDS) > 25
    assert {"README.md", "docs/classes.md", "docs/multi-gpu.md"} <= {page for page, _ in COMMANDS}


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}-{one.text}" for page, one in COMMANDS])
def test_the_parser_takes_every_command(page, command):
    if command.words[0].startswith("turpentine.tests."):
        assert find_spec(command.words[0])
    else:
        programs.parse(command.words)
    if command.launcher[:1] == ("accelerate",):
        launch_command_parser().parse_args([*command.launcher[2:], "-m", *command.words])
    elif command.launcher[:1] == ("torchrun",):
        get_args_parser().parse_args([*command.launcher[1:], "-m", *command.words])


def test_a_wrong_option_is_noticed():
    with pytest.raises(ValueError, match="unrecognized arguments: --no-such-option"):
        programs.parse(["turpentine", "unlearn", "--concept", "cat", "--no-such-option"])
    with pytest.raises(ValueError, match="unrecognized arguments: --no-such-option"):
        programs.parse(["turpentine.benchmarks.step", "--no-such-option"])


@every_page
def test_options_in_the_text_exist(page):
    named = {option for code in pages.inline(page) for option in OPTION.findall(code)}
    assert not named - known_options() - OTHERS


@pytest.mark.parametrize("file", CODE, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_options_that_messages_name_exist(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not {option for text in texts for option in OPTION.findall(text)} - known_options()


def test_every_page_with_python_is_run():
    assert {pages.name(page) for page in pages.PAGES if pages.python(page)} == set(RUN_BY)
    assert all((ROOT / "tests" / "e2e" / file).is_file() for file in RUN_BY.values())


@every_page
def test_python_examples_use_what_is_there(page):
    """A page's examples are read one after another: each name is defined, each import is found."""
    examples = pages.python(page)
    if not examples:
        return
    code = "\n".join([*(f"{name} = None" for name in GIVEN.get(pages.name(page), ())), *examples])
    tree = ast.parse(code)
    assert sum(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree)), (
        "an example starts from nothing"
    )
    lint = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "concise", "-"]
    done = subprocess.run(lint, input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), pages.name(page), "exec"), {})
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "turpentine":
            assert hasattr(turpentine, node.attr), f"line {node.lineno}: turpentine.{node.attr}"
