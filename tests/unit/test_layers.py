"""Who imports whom, and what package code does not do: read from the source of every file."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import turpentine

ROOT = Path(turpentine.__file__).parent
NO_PACKAGE = ("tests",)
SCRIPTS = {file for file in (ROOT / "benchmarks").glob("*.py") if "__main__" in file.read_text(encoding="utf-8")}
"""Programs of their own, which import the installed package."""
FOLDERS = sorted(
    folder
    for folder in (path.parent for path in ROOT.rglob("__init__.py"))
    if not set(folder.relative_to(ROOT).parts) & set(NO_PACKAGE)
    and not any(part.startswith(".") for part in folder.relative_to(ROOT).parts)
)
FILES = sorted({file for folder in FOLDERS for file in folder.glob("*.py")} - SCRIPTS)
PIPELINE = [file for file in FILES if file.relative_to(ROOT).parts[0] == "pipeline"]
TREE = (
    "support",
    "maths",
    "worlds",
    "models",
    "prompts",
    "methods",
    "schema",
    "data",
    "audits",
    "weights",
    "report",
    "training",
    "run",
    "api",
    "modular",
    "bundled",
    "commands",
)
"""What stands directly under `pipeline/`, in order: a room imports itself and what stands before it."""
OWN = {path.name for path in ROOT.iterdir() if path.is_dir()} | {"turpentine"}


def name_of(file):
    return file.relative_to(ROOT).as_posix()


def room(file):
    return file.relative_to(ROOT / "pipeline").parts[0].removesuffix(".py")


def imports(file):
    """(line, absolute module name, relative?) of every import, those inside functions too."""
    package = ["turpentine", *file.parent.relative_to(ROOT).parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module, False
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            if node.module:
                yield node.lineno, ".".join([*base, node.module]), True
            else:
                yield from ((node.lineno, ".".join([*base, alias.name]), True) for alias in node.names)


def test_there_is_something_to_read():
    assert {"__init__.py", "pipeline/training/trainer.py", "pipeline/models/protocol.py"} <= set(map(name_of, FILES))
    assert not any(part in name_of(file).split("/") for file in FILES for part in NO_PACKAGE)


def test_imports_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    file = tmp_path / "a" / "b" / "c.py"
    file.write_text("import os.path\nfrom . import x\nfrom ..y import z\ndef f():\n    from ... import w\n")
    assert {(module, relative) for _, module, relative in imports(file)} == {
        ("os.path", False),
        ("turpentine.a.b.x", True),
        ("turpentine.a.y", True),
        ("turpentine.w", True),
    }


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_own_code_is_imported_relatively(file):
    """An absolute import would load a second copy where the package has another name."""
    wrong = [
        f"line {line}: {module}"
        for line, module, relative in imports(file)
        if not relative and module.split(".")[0] in OWN
    ]
    assert not wrong


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_relative_imports_stay_inside_the_package(file):
    for line, module, relative in imports(file):
        assert not relative or module.split(".")[0] == "turpentine", f"line {line} goes above the package"


@pytest.mark.parametrize("file", [file for file in PIPELINE if room(file) != "commands"], ids=name_of)
def test_pipeline_knows_no_front_end(file):
    """`commands` may: it is where everything is put together."""
    forbidden = {"gradio", "comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "server", "execution"}
    for line, module, relative in imports(file):
        parts = module.split(".")
        assert relative or parts[0] not in forbidden, f"line {line}: {module}"
        assert not relative or parts[1] not in ("ui", "comfy_nodes", "benchmarks"), f"line {line}: {module}"


@pytest.mark.parametrize("front", ["ui", "comfy_nodes"])
def test_front_ends_do_not_know_each_other(front):
    other = {"ui": "comfy_nodes", "comfy_nodes": "ui"}[front]
    for file in FILES:
        if file.relative_to(ROOT).parts[0] == front:
            assert not [module for _, module, _ in imports(file) if module.startswith(f"turpentine.{other}")]


def test_the_tree_is_whole():
    assert {room(file) for file in PIPELINE} - {"__init__"} == set(TREE)


@pytest.mark.parametrize("file", PIPELINE, ids=name_of)
def test_a_room_imports_only_what_stands_above_it(file):
    """Every import counts, wherever in the code it stands, so that there can be no cycle either."""
    if room(file) == "__init__":
        return
    allowed = TREE[: TREE.index(room(file)) + 1]
    for line, module, relative in imports(file):
        parts = module.split(".")
        if relative and parts[1:2] == ["pipeline"]:
            assert parts[2] in allowed, f"line {line}: {module} stands below {room(file)}"


@pytest.mark.parametrize("file", [file for file in PIPELINE if room(file) == "maths"], ids=name_of)
def test_formulas_need_only_numpy_and_torch(file):
    allowed = {*sys.stdlib_module_names, "numpy", "torch"}
    for line, module, relative in imports(file):
        assert relative or module.split(".")[0] in allowed, f"line {line}: {module}"


@pytest.mark.parametrize("file", PIPELINE, ids=name_of)
def test_no_print_no_path_edits_no_logging_setup(file):
    script = name_of(file).startswith("pipeline/bundled/tiny_canvas/train_")
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert script, f"line {node.lineno}: print"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = f"{node.value.id}.{node.attr}"
            assert used != "sys.path", f"line {node.lineno}: {used}"
            assert used != "logging.basicConfig", f"line {node.lineno}: {used}"


def test_pyproject_lists_every_package():
    with open(ROOT / "pyproject.toml", "rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(".".join(["turpentine", *folder.relative_to(ROOT).parts]) for folder in FOLDERS)


def test_every_folder_with_code_is_a_package():
    for file in (ROOT / "pipeline").rglob("*.py"):
        assert file.parent in FOLDERS, f"{name_of(file.parent)} has no __init__.py"


def test_importing_the_package_is_light(tmp_path):
    code = "import sys, turpentine; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "turpentine" in loaded
    assert not loaded & {"torch", "gradio", "diffusers", "transformers", "pydantic", "numpy"}


def test_the_protocol_of_models_is_light(tmp_path):
    """The schema names what it says, and must not wait for torch, diffusers or transformers."""
    code = "import sys, turpentine.pipeline.models.protocol, turpentine.pipeline.models.lineage; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "diffusers", "transformers"}


def test_importing_the_schema_loads_no_library_of_models(tmp_path):
    """So that help, mistakes in a recipe and ComfyUI's menus come at once."""
    modules = "recipe", "fields", "defaults", "resolve", "results", "events"
    code = (
        f"import sys; {'; '.join(f'import turpentine.pipeline.schema.{name}' for name in modules)}; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "pydantic" in loaded
    assert not loaded & {"torch", "diffusers", "transformers", "gradio", "matplotlib"}


def test_public_names():
    assert set(turpentine.__all__) <= set(dir(turpentine))
    with pytest.raises(AttributeError, match="module 'turpentine' has no attribute 'nonsense'"):
        _ = turpentine.nonsense


@pytest.mark.parametrize("name", turpentine.__all__)
def test_public_name_is_there(name):
    assert getattr(turpentine, name)
