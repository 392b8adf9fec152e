"""The registry of methods: its own, those of other packages, and what is refused."""

from typing import ClassVar, Literal

import pytest
from turpentine.pipeline.methods import MethodConfig, MethodSpec, build_method, find, names, register
from turpentine.pipeline.methods.combined import Combined
from turpentine.pipeline.methods.finetune import Finetune, FinetuneConfig
from turpentine.pipeline.methods.restricted import RGDConfig
from turpentine.pipeline.support.errors import UserError

from ..support.plugin import PLUGIN, install, python


def test_names_in_the_order_of_the_front_ends():
    trained = ["finetune", "grad_diff", "grad_diff_d", "salun", "esd", "esd-x", "esd-u", "rg", "rgd"]
    assert names() == [*trained, "uce", "rece", "speed"]


def test_a_method_is_found_by_its_name():
    assert find("rgd") == MethodSpec(RGDConfig, Combined)
    assert type(build_method(FinetuneConfig())) is Finetune
    with pytest.raises(UserError, match=r"method must be one of \['esd', .*'salun', .*\], got 'magic'"):
        find("magic")


def test_needs_of_each_method():
    def those(need):
        return {name for name in names() if getattr(find(name).config(), need)}

    assert those("projects") == {"rg", "rgd"}
    assert those("two_gradients") == those("ascends") == {"grad_diff", "grad_diff_d", "rg", "rgd"}
    closed = {"uce", "rece", "speed"}
    assert those("closed_form") == closed
    assert those("needs_unconditional") == those("needs_whole_weights") == {"salun", "esd", "esd-x", "esd-u", *closed}
    terms = {name: find(name).config.terms for name in names()}
    assert {terms.pop(name) for name in closed} == {()}
    assert terms.pop("finetune") == ("retain",)
    assert {terms.pop(name) for name in ("esd", "esd-x", "esd-u")} == {("forget",)}
    assert set(terms.values()) == {("forget", "retain")}


class Unnamed(MethodConfig):
    terms: ClassVar[tuple[str, ...]] = ("retain",)


class Again(MethodConfig):
    name: Literal["finetune"] = "finetune"


def test_names_are_refused_that_are_missing_or_taken():
    with pytest.raises(ValueError, match=r"Unnamed\.name must have a text as its default, got PydanticUndefined"):
        register(Unnamed, Finetune)
    with pytest.raises(ValueError, match=r"the name 'finetune' is taken by .*\.finetune\. Give Again another"):
        register(Again, Finetune)
    register(FinetuneConfig, Finetune)  # the same again, as a module that is loaded twice does


def test_importing_the_registry_and_its_configurations_loads_no_torch(tmp_path):
    code = "import sys, turpentine.pipeline.methods; print('torch' in sys.modules)"
    assert python(tmp_path, code).stdout == "False\n"


def test_a_package_brings_a_method(tmp_path):
    install(tmp_path, "turpentine-push", "turpentine_push", PLUGIN)
    code = """
from turpentine.pipeline.schema.defaults import build_recipe
recipe = build_recipe({"concept": "cat", "method": {"name": "push", "strength": 3}})
print(type(recipe.method).__module__, recipe.method.strength, recipe.model_dump()["method"])
from turpentine.pipeline.commands.main import main
main(["unlearn", "--help"])
"""
    done = python(tmp_path, code)
    assert "turpentine_push 3.0 {'name': 'push', 'data': 'diverse', 'strength': 3.0}" in done.stdout, done.stderr
    assert "|push" in done.stdout.replace("\n", "").replace(" ", "")


def test_a_broken_package_is_named_and_the_others_work(tmp_path):
    install(tmp_path, "turpentine-push", "turpentine_push", PLUGIN)
    install(tmp_path, "broken-one", "broken_one", "import nothing_of_this_name")
    install(tmp_path, "thief", "thief", PLUGIN.replace("push", "rgd"))
    done = python(tmp_path, "from turpentine.pipeline.methods import names; print(names()[-1])")
    assert done.stdout == "push\n"
    assert "the package 'broken-one' has a method that can't be loaded (broken_one: ModuleNotFoundError" in done.stderr
    assert "the package 'thief' has a method" in done.stderr and "the name 'rgd' is taken" in done.stderr
    assert "Traceback" not in done.stderr
