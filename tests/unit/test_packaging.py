"""The version and the requirements are each written once, and what is shipped keeps to them."""

import ast
import os
import re
import sys
import tomllib
from importlib import import_module
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
import turpentine
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(turpentine.__file__).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
COMFYUI = {"comfy", "comfy_execution", "folder_paths", "nodes"}
"""Modules that ComfyUI provides to its node packs."""
OWNERS = {
    "annotated-types": "pydantic",
    "gradio-client": "gradio",
    "httpx": "gradio",
    "markupsafe": "jinja2",
    "onnxruntime": "nudenet",
    "pandas": "gradio",
    "starlette": "gradio",
    "tokenizers": "transformers",
}
"""Packages whose objects a package that we require takes or gives: that package chooses their version."""


def lines(name: str) -> list[str]:
    """The lines of a requirements file without comments."""
    text = re.sub(r"#.*", "", (ROOT / name).read_text(encoding="utf-8"))
    return [line.strip() for line in text.splitlines() if line.strip()]


def requirements(*extras: str) -> list[Requirement]:
    """The package's own requirements and those of `extras`, with the extras that these name."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for requirement in map(Requirement, EXTRAS[extra]):
            found += requirements(*requirement.extras) if requirement.name == "turpentine" else [requirement]
    return found


def test_the_version_is_written_once():
    assert "version" not in PROJECT and PROJECT["dynamic"] == ["version"]
    module, name = PYPROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"].rsplit(".", 1)
    assert getattr(import_module(module), name) == turpentine.__version__


def test_requirements_txt_is_the_package_and_its_extra_clip():
    assert lines("requirements.txt") == PROJECT["dependencies"] + EXTRAS["clip"]


def test_constraints_name_a_version_within_the_bounds_for_every_requirement():
    pinned = {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in map(Requirement, lines("constraints.txt"))
    }
    for requirement in requirements("all", "test"):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} allows no {version}"
    assert all(Version(version).local is None for version in pinned.values())
    assert not [name for name in pinned if name.startswith(("nvidia-", "cuda-", "triton"))]


def third_party(folder: str) -> dict[str, str]:
    """The modules of other packages that a folder's files import, by name: one file of each."""
    ours = {"turpentine", *sys.stdlib_module_names, *COMFYUI}
    found = {}
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            found |= {name.split(".")[0]: str(file.relative_to(ROOT)) for name in names}
    return {name: file for name, file in found.items() if name not in ours}


@pytest.mark.parametrize("folder", ["pipeline", "comfy_nodes", "ui", "benchmarks", "tests"])
def test_every_package_that_is_imported_is_required(folder):
    required = {canonicalize_name(requirement.name) for requirement in requirements("all", "test")}
    required |= {name for name, owner in OWNERS.items() if owner in required}
    distributions = packages_distributions()
    unknown = [
        f"{file} imports {module}"
        for module, file in third_party(folder).items()
        if not required & {canonicalize_name(name) for name in distributions.get(module, [module])}
    ]
    assert not unknown, "no extra of README's commands names what is imported"


def test_helpers_of_tests_are_no_tests():
    for file in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                last = str(node.module).rpartition(".")[2]
                assert last != "conftest" and not last.startswith("test_"), f"{file.name}, line {node.lineno}"


def test_the_workflow_runs_our_scripts_on_every_python_that_we_name():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    scripts = {command.split()[0] for command in commands if command.startswith(".ci/")}
    assert scripts == {".ci/run", ".ci/lowest", ".ci/newest"}
    assert all(os.access(script, os.X_OK) for script in (ROOT / ".ci").iterdir())
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert set(jobs["unit"]["strategy"]["matrix"]["python"]) == named
    assert PROJECT["requires-python"] == f">={min(named, key=Version)}"


@pytest.mark.parametrize(("name", "owner"), OWNERS.items())
def test_an_owner_requires_its_package(name, owner):
    assert name in {canonicalize_name(Requirement(line).name) for line in distribution(owner).requires or ()}


def test_the_types_are_shipped():
    assert (ROOT / "py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["turpentine"]


def test_every_file_that_a_front_end_or_the_pipeline_reads_is_shipped():
    """Templates, styles, recipes, pages of help: what is no Python has to be named as package data."""
    setuptools = PYPROJECT["tool"]["setuptools"]
    folders = {name: ROOT.joinpath(*name.split(".")[1:]) for name in setuptools["packages"]}
    shipped = {
        file
        for package, patterns in setuptools["package-data"].items()
        for pattern in patterns
        for file in folders[package].glob(pattern)
    }
    found = {
        file
        for folder in ("pipeline", "comfy_nodes", "ui")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    assert {file.suffix for file in found} >= {".html", ".css", ".yaml", ".md"}
    assert sorted(str(file.relative_to(ROOT)) for file in found - shipped) == []
