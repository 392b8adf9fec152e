"""The node pack without ComfyUI: how it loads, what its nodes say of themselves, how widgets become recipes."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import turpentine
from turpentine.comfy_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, host, locales
from turpentine.comfy_nodes.inputs import AUTO, chosen, widgets
from turpentine.comfy_nodes.networks import mmdit_config, unet_config
from turpentine.comfy_nodes.pictures import from_image
from turpentine.comfy_nodes.unlearn_concept import _ORDER, UnlearnOptions
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.fields import fields_of
from turpentine.pipeline.support.errors import UserError

ROOT = Path(turpentine.__file__).parent
SAVED = json.loads((ROOT / "tests" / "e2e" / "saved" / "1-bundled-demo.json").read_text(encoding="utf-8"))
"""A graph that an older version saved."""
NODES = sorted(NODE_CLASS_MAPPINGS.items())
SECTIONS = ("method", "training", "samples", "audits", "output", "prompts")


def test_loads_as_comfyui_loads_a_folder_and_loads_no_library():
    """Under a path for a name, without torch, and in less than half a second of the processor's time."""
    code = f"""
import importlib.util, sys, time, json
began = time.process_time()
spec = importlib.util.spec_from_file_location({str(ROOT)!r}, {str(ROOT / "__init__.py")!r})
module = importlib.util.module_from_spec(spec)
sys.modules[{str(ROOT)!r}] = module
spec.loader.exec_module(module)
found = sorted(module.NODE_CLASS_MAPPINGS) if hasattr(module, "NODE_CLASS_MAPPINGS") else []
heavy = [name for name in ("torch", "diffusers", "transformers", "pydantic", "turpentine") if name in sys.modules]
others = hasattr(module, "comfy_entrypoint")
print(json.dumps([found, heavy, module.WEB_DIRECTORY, others, time.process_time() - began]))
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    found, heavy, web, other_interface, seconds = json.loads(done.stdout)
    assert found == sorted(NODE_CLASS_MAPPINGS)
    assert heavy == []
    assert (ROOT / web / "docs").is_dir()
    assert not other_interface
    assert seconds < 0.5


def test_the_pack_is_the_same_under_a_foreign_name():
    """Inputs too: they import the whole package relatively, under that name."""
    name = "/somewhere/custom_nodes/turpentine"
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        for id_, node in module.NODE_CLASS_MAPPINGS.items():
            assert node.__module__.startswith(f"{name}.comfy_nodes.")
            assert node.INPUT_TYPES() == NODE_CLASS_MAPPINGS[id_].INPUT_TYPES()
    finally:
        for loaded in [each for each in sys.modules if each.startswith(name)]:
            del sys.modules[loaded]


@pytest.mark.parametrize(("id_", "node"), NODES)
def test_every_node_says_what_it_is(id_, node):
    assert id_.startswith("Turpentine")
    assert NODE_DISPLAY_NAME_MAPPINGS[id_].endswith("(Turpentine)")
    assert node.CATEGORY == "Turpentine"
    assert callable(getattr(node, node.FUNCTION))
    assert node.DESCRIPTION.endswith(".")
    assert node.SEARCH_ALIASES
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS)
    assert len(getattr(node, "OUTPUT_IS_LIST", node.RETURN_TYPES)) == len(node.RETURN_TYPES)
    assert all(node.OUTPUT_TOOLTIPS)
    page = ROOT / "comfy_nodes" / "web" / "docs" / f"{id_}.md"
    assert page.read_text(encoding="utf-8").startswith(f"# {NODE_DISPLAY_NAME_MAPPINGS[id_].split(' (')[0]}\n")


@pytest.mark.parametrize(("id_", "node"), NODES)
def test_every_input_is_one_that_comfyui_knows(id_, node):
    wires = {"IMAGE", "MODEL", "CLIP", "VAE", "PROMPT_SET", "TURPENTINE_MODEL", "TURPENTINE_OPTIONS"}
    for group, inputs in node.INPUT_TYPES().items():
        assert group in ("required", "optional")
        for name, (kind, settings) in inputs.items():
            assert name.isidentifier()
            first, _, _ = settings["tooltip"].partition(" ")
            words = kind if isinstance(kind, list) else []
            assert not first[:1].islower() or first.removesuffix(":") in words, name
            assert settings["tooltip"].endswith("."), name
            if isinstance(kind, list):
                assert kind and settings.get("default", kind[0]) in kind
                assert len(kind) == len({*kind}), name
            elif kind in ("INT", "FLOAT"):
                assert settings["min"] <= settings["default"] <= settings["max"]
            else:
                assert kind in wires | {"STRING", "BOOLEAN"}, name
    assert json.dumps(node.INPUT_TYPES())


@pytest.mark.parametrize("saved", SAVED["nodes"], ids=lambda node: f"{node['type']}-{node['id']}")
def test_graphs_of_before_find_their_widgets(saved):
    """A graph keeps values by position, so what came later stands behind what was there."""
    if saved["type"] in NODE_CLASS_MAPPINGS:
        inputs = [each for group in NODE_CLASS_MAPPINGS[saved["type"]].INPUT_TYPES().values() for each in group.items()]
        values = ("STRING", "INT", "FLOAT", "BOOLEAN")
        now = [
            name
            for name, (kind, settings) in inputs
            if (isinstance(kind, list) or kind in values) and not settings.get("forceInput")
        ]
        before = [slot["name"] for slot in saved["inputs"] if "widget" in slot]
        assert len(before) == len(saved.get("widgets_values", []))
        assert now[: len(before)] == before


def test_every_setting_has_its_place_in_unlearn_options():
    assert list(UnlearnOptions.INPUT_TYPES()["optional"]) == _ORDER


def test_no_help_page_without_a_node():
    pages = {path.stem for path in (ROOT / "comfy_nodes" / "web" / "docs").glob("*.md")}
    assert pages == set(NODE_CLASS_MAPPINGS)


def test_locales_say_what_the_classes_say():
    assert locales.FILE.read_text(encoding="utf-8") == locales.texts(), "run: python -m turpentine.comfy_nodes.locales"
    names = json.loads(locales.texts())
    assert {id_: entry["display_name"] for id_, entry in names.items()} == NODE_DISPLAY_NAME_MAPPINGS
    assert {id_: entry["description"] for id_, entry in names.items()} == {id_: n.DESCRIPTION for id_, n in NODES}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_has_its_widget(section):
    expected = {field.name for field in fields_of(section)}
    assert set(widgets(section)) == expected
    assert chosen({name: settings["default"] for name, (_, settings) in widgets(section).items()}, section) == {}


def test_what_was_chosen_becomes_a_recipe():
    picked = chosen(
        {"batch_size": 4, "guard": "on", "max_grad_norm": 0.0, "precision": "bf16", "formats": "denoiser, lora"}
        | {"retain_weight": 2.5, "forget_limit": 0, "steps": -1, "learning_rate": -1.0, "warmup_steps": 0},
        *SECTIONS,
    )
    assert picked == {
        "training": {"batch_size": 4, "guard": True, "max_grad_norm": None, "precision": "bf16", "warmup_steps": 0},
        "output": {"formats": ["denoiser", "lora"]},
        "method": {"retain_weight": 2.5, "forget_limit": None},
    }
    recipe = build_recipe({"concept": "cat", **picked})
    assert recipe.training.guard and recipe.method.forget_limit is None
    assert recipe.training.steps == build_recipe({"concept": "cat"}).training.steps


def test_a_value_out_of_range_is_refused_by_the_recipe():
    with pytest.raises(UserError, match=r"training\.batch_size"):
        build_recipe({"concept": "cat", **chosen({"batch_size": 0}, "training")})


def test_text_fields_and_choices_start_at_their_defaults():
    kind, settings = widgets("samples")["scheduler"]
    assert kind[0] == AUTO == settings["default"]
    assert widgets("prompts")["llm_url"][1]["default"] == ""


@pytest.mark.parametrize(
    "name", ["", "  ", "../up", "a/b", "a\\b", ".hidden", "/etc/passwd", "C:x", "a\nb", "%date%", "a" * 101, "猫" * 40]
)
def test_names_can_not_lead_out_of_a_folder(name):
    with pytest.raises(UserError, match="plain file name"):
        host.safe_name(name)


@pytest.mark.parametrize("name", ["cat", "sd15 without-cat_v1.2+b"])
def test_plain_names_are_taken(name):
    assert host.safe_name(f" {name} ") == name


_SD1 = {
    "model_channels": 320, "channel_mult": [1, 2, 4, 4], "num_res_blocks": [2, 2, 2, 2], "in_channels": 4,
    "out_channels": 4, "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_output": [1] * 9 + [0] * 3,
    "context_dim": 768, "num_heads": 8, "num_head_channels": -1, "use_linear_in_transformer": False,
}  # fmt: skip
_SD2 = _SD1 | {"context_dim": 1024, "num_heads": -1, "num_head_channels": 64, "use_linear_in_transformer": True}
_XL = _SD2 | {
    "channel_mult": [1, 2, 4], "num_res_blocks": [2, 2, 2], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "context_dim": 2048, "adm_in_channels": 2816,
}  # fmt: skip


_SD3 = {
    "patch_size": 2, "in_channels": 16, "out_channels": 16, "depth": 24, "adm_in_channels": 2048,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 1536}},
    "pos_embed_max_size": 192, "x_block_self_attn_layers": [],
}  # fmt: skip
_SD35 = _SD3 | {"qk_norm": "rms", "pos_embed_max_size": 384, "x_block_self_attn_layers": list(range(13))}


@pytest.mark.parametrize(
    ("network", "config", "found", "weights"),
    [
        ("UNet2DConditionModel", unet_config, _SD1, 859_520_964),
        ("UNet2DConditionModel", unet_config, _SD2, 865_910_724),
        ("UNet2DConditionModel", unet_config, _XL, 2_567_463_684),
        ("SD3Transformer2DModel", mmdit_config, _SD3, 2_028_328_000),
        ("SD3Transformer2DModel", mmdit_config, _SD35, 2_243_171_520),
    ],
    ids=["1.x", "2.x", "XL", "3 medium", "3.5 medium"],
)
def test_the_bridge_builds_the_published_networks(network, config, found, weights):
    """By ComfyUI's description of each; the numbers are those of the published models."""
    import diffusers

    with torch.device("meta"):
        built = getattr(diffusers, network)(**config(found, 512))
    assert sum(parameter.numel() for parameter in built.parameters()) == weights


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_image_that_holds_no_numbers_is_refused(bad):
    image = torch.zeros(2, 4, 4, 3)
    assert from_image(image).shape == (2, 4, 4, 3)
    image[1, 0, 0, 2] = bad
    with pytest.raises(UserError, match=r"got an IMAGE with NaN \(not a number\)"):
        from_image(image)


def test_pictures_of_every_number_of_channels_are_rgb():
    grey = torch.linspace(-0.5, 1.5, 16).reshape(1, 4, 4, 1)
    wanted = (grey.clamp(0, 1) * 255).round().byte().expand(1, 4, 4, 3).numpy()
    for image in (grey, grey.expand(1, 4, 4, 3), torch.cat([grey.expand(1, 4, 4, 3), grey], -1), grey.half()):
        assert from_image(image).shape == (1, 4, 4, 3)
    assert (from_image(grey) == wanted).all()
    assert (from_image(torch.cat([grey.expand(1, 4, 4, 3), grey], -1)) == wanted).all(), "transparency is dropped"
