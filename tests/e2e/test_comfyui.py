"""The node pack in a real ComfyUI: the shipped graphs over its API, cancel, caching and mistakes."""

import json
import re
from urllib.error import HTTPError

import numpy as np
import pytest
from PIL import Image
from turpentine.comfy_nodes import NODE_CLASS_MAPPINGS

from .comfy_graphs import WORKFLOWS, draw, native, node, shipped, short


def test_the_pack_loads(comfy):
    info = comfy.get("/object_info")
    mine = {name: each for name, each in info.items() if each["python_module"] == "custom_nodes.turpentine"}
    assert set(mine) == set(NODE_CLASS_MAPPINGS)
    assert "IMPORT FAILED" not in comfy.log() and "Unable to parse pyproject" not in comfy.log()
    (seconds,) = re.findall(r"([\d.]+) seconds.* \S*custom_nodes/turpentine$", comfy.log(), flags=re.MULTILINE)
    assert float(seconds) < 10  # by the clock; test_comfy_nodes.py keeps the promise of 0.5 s of work
    assert comfy.get("/extensions/turpentine/docs/TurpentineUnlearnConcept.md", raw=True).startswith(b"# Unlearn")
    assert "1-bundled-demo" in comfy.get("/workflow_templates")["turpentine"]
    assert "TurpentineCompare" in comfy.get("/i18n")["en"]["nodeDefs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_shipped_workflow_runs(path, comfy):
    graph = short(json.loads(path.read_text()))
    done = comfy.run(graph)
    assert done.status == "success", done.error
    for id_, each in graph.items():
        if each["class_type"] == "PreviewImage":
            pixels = done.pixels(id_)
            assert pixels.shape[-1] == 3 and pixels.std() > 1
        elif each["class_type"] == "PreviewAny":
            assert done.text(id_)
    again = comfy.run(graph)
    assert again.status == "success" and again.cached == set(graph)


def test_cancel_leaves_the_model_and_the_next_run_goes_on(comfy, comfy_base):
    graph = short(shipped("1"))
    graph["p"] = node("PreviewImage", images=["3", 0])
    look = {id_: graph[id_] for id_ in ("1", "2", "3", "p")}
    before = comfy.run(look)
    train = {id_: graph[id_] for id_ in ("1", "2", "4", "16")}
    train["4"]["inputs"] |= {"steps": 12, "measure": False, "seed": 7}

    def third_step():
        runs = [path for path in (comfy_base / "output/turpentine/runs").glob("*") if "seed: 7" in recipe(path)]
        return any((run / "events.jsonl").exists() and len(steps(run)) >= 3 for run in runs)

    stopped = comfy.run(train, stop_when=third_step)
    assert stopped.status == "error" and "execution_interrupted" in stopped.messages
    (run,) = [path for path in (comfy_base / "output/turpentine/runs").glob("*") if "seed: 7" in recipe(path)]
    at = len(steps(run))
    assert 3 <= at <= 5 and list((run / "checkpoints").glob("step-*.safetensors"))
    look["3"]["inputs"]["seed"] = 1
    comfy.run(look)  # pushes what ComfyUI remembers of the pictures out
    look["3"]["inputs"]["seed"] = 0
    after = comfy.run(look)
    assert "1" in after.cached and "3" not in after.cached
    assert (after.pixels("p") == before.pixels("p")).all()
    finished = comfy.run(train)
    assert finished.status == "success" and "resumed from a checkpoint" in finished.text("4")
    assert len(steps(run)) == 12
    done, total = zip(*finished.progress("4"), strict=True)
    assert (12, 12) in zip(done, total, strict=True)
    assert max(picture.width for picture in finished.previews) > 400  # loss curves, and pictures before and now


def _removal(**unlearn):
    """tiny-canvas, of which a cat is removed for a horse, and its held-out pictures before and after."""
    graph = {
        "model": node("TurpentineModelFromDiffusers", model="tiny-canvas"),
        "set": node(
            "TurpentineDiversePromptSet",
            concept="cat", kind="object", world="tiny-canvas", seed=0, replace_with="a horse",
        ),
        "before": node(
            "TurpentineGenerate", model=["model", 0], prompts=["set", 0], which="forget_test", images=2, seed=0
        ),
        "unlearn": node(
            "TurpentineUnlearnConcept",
            model=["model", 0], prompts=["set", 0], method="rgd", steps=2, learning_rate=1e-3, seed=3,
            save_as="delta", measure=False,
        ),
        "after": node(
            "TurpentineGenerate", model=["unlearn", 0], prompts=["set", 0], which="forget_test", images=2, seed=0
        ),
        "p": node("PreviewImage", images=["before", 0]),
        "q": node("PreviewImage", images=["after", 0]),
    }  # fmt: skip
    graph = short(graph)
    graph["unlearn"]["inputs"] |= unlearn
    return graph


def test_what_is_drawn_instead_is_measured_and_the_removal_taken_back(comfy, comfy_base):
    graph = _removal(measure=True)
    graph["clip"] = node(
        "TurpentineAuditAlignment",
        images=["after", 0], prompts=["after", 1], anchors=["after", 2], other_images=["before", 0],
        model="tiny-canvas", allow_download=False,
    )  # fmt: skip
    graph["concept"] = node(
        "TurpentineAuditConcept",
        images=["before", 0], concept="cat", kind="object", model="tiny-canvas", allow_download=False,
    )  # fmt: skip
    graph["show"] = node("PreviewAny", source=["after", 2])
    graph["report"] = node("TurpentineReport", model=["unlearn", 0])
    done = comfy.run(graph)
    assert done.status == "success", done.error
    assert "horse" in done.text("show") and "cat" not in done.text("show")
    assert "with what should be drawn instead" in done.text("clip")
    assert "by tiny-canvas among 7 names" in done.text("concept")
    assert "scene kept" in done.text("report")
    assert "no effect" not in done.text("unlearn")
    before, after = done.pixels("p"), done.pixels("q")
    assert abs(after - before).max() > 0
    path = re.search(r"Weights: (.*)", done.text("unlearn"))[1]
    back = {id_: graph[id_] for id_ in ("model", "set", "unlearn", "unlearno", "after", "q")} | {
        "back": node(
            "TurpentineTakeBack", model=["unlearn", 0], file=f"loras/{path.rpartition('/')[2]}", any_base=False
        ),
        "told": node("PreviewAny", source=["back", 2]),
    }
    back["after"] = node("TurpentineGenerate", **graph["after"]["inputs"] | {"model": ["back", 0]})
    done = comfy.run(back)
    assert done.status == "success", done.error
    assert "Taken back: cat; bit for bit" in done.text("told")
    assert (done.pixels("q") == before).all()


def test_by_pictures_and_in_closed_form(comfy, comfy_base):
    """Neither is told of a text that nobody gave."""
    pixels = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(comfy_base / "input" / "logo.png")
    graph = _removal(forget_images=["logo", 0], save_as="nothing")
    graph["logo"] = node("LoadImage", image="logo.png")
    graph["edit"] = node(
        "TurpentineUnlearnConcept", **graph["unlearn"]["inputs"] | {"method": "uce", "steps": -1, "learning_rate": -1}
    )
    del graph["edit"]["inputs"]["forget_images"]
    graph["set"]["inputs"]["replace_with"] = ""
    done = comfy.run(graph)
    assert done.status == "success", done.error
    assert "1 picture to forget" in done.text("unlearn") and done.pixels("q").std() > 1
    assert "replace_with" not in done.text("unlearn") + done.text("edit")
    (kept,) = (comfy_base / "output" / "turpentine").glob("pictures-*/*.png")
    assert (np.asarray(Image.open(kept)) == pixels).all()


def recipe(run):
    path = run / "recipe.yaml"
    return path.read_text() if path.exists() else ""


def steps(run):
    return (run / "events.jsonl").read_text().splitlines()


def test_a_finished_training_is_found_after_a_restart(start_comfy, comfy):
    graph = short(shipped("5"))
    pixels = comfy.run(graph).pixels("13")  # now: a starting server empties the folder of temporary pictures
    with start_comfy() as another:
        again = another.run(graph)
        assert "found on disk" in again.text("6")
        assert (again.pixels("13") == pixels).all()


def test_only_what_matters_runs_again(comfy):
    graph = short(shipped("1"))
    first = comfy.run(graph)
    assert first.status == "success", first.error
    graph["4"]["inputs"]["learning_rate"] = 2e-3
    other = comfy.run(graph)
    assert other.status == "success", other.error
    assert {"1", "2", "3", "6"} <= other.cached and not {"4", "5", "9"} & other.cached
    assert "found on disk" not in other.text("4")
    assert abs(other.pixels("10") - first.pixels("10")).max() > 0
    graph["4"]["inputs"]["learning_rate"] = 1e-3
    back = comfy.run(graph)
    assert "4" not in back.cached and "found on disk" in back.text("4")
    assert (back.pixels("10") == first.pixels("10")).all()


def _mistakes():
    """(what the message says, a graph that makes the mistake)."""
    tiny, checkpoint = short(shipped("1")), native("sd15")

    def graph(*parts, **nodes):
        return json.loads(json.dumps({id_: each for part in parts for id_, each in part.items()} | nodes))

    def save(model, save_as="delta", name=""):
        return node("TurpentineSaveWeights", model=[model, 0], save_as=save_as, name=name, dtype="fp32")

    world = graph(tiny)
    world["2"]["inputs"]["world"] = "open"
    yield "Set `world`", world
    yield "plain file name", graph(tiny, x=save("4", name="../../up"))
    yield "AutoencoderTiny", graph(tiny, x=save("4", "checkpoint"))
    loaded = {"1": tiny["1"], "2": tiny["2"]}
    yield "Wire Unlearn Concept", graph(loaded, x=node("TurpentineReport", model=["1", 0]))
    yield "Wire Unlearn Concept", graph(loaded, x=save("1"))
    apply = node("TurpentineApplyWeights", model=["1", 0], file="loras/gone.safetensors", strength=1.0, any_base=False)
    yield "Choose another file", graph(loaded, a=apply, x=save("a"))
    other = graph(x=node("TurpentineReport", model=["1", 0]))
    other["1"] = node("TurpentineModelFromDiffusers", model="other", path="some/model")
    yield "allow_download", other
    other = graph(other)
    other["1"]["inputs"]["path"] = ""
    yield "in `path`, got nothing", other
    names = graph(loaded, x=node("TurpentineSavePromptSet", prompts=["2", 0], name="cats", format="json"))
    names["2"]["inputs"] |= {"text": "an astronaut | another astronaut", "n_test": 100}
    yield "expected a retain prompt without", names
    anchor = graph(names)
    anchor["2"]["inputs"] |= {"text": "", "replace_with": "an astronaut"}
    yield "expected another thing to draw instead", anchor
    batch = node("EmptyImage", width=64, height=64, batch_size=8, color=255)
    pictures = {id_: graph(tiny)[id_] for id_ in ("1", "2", "4", "16")}
    pictures["4"]["inputs"]["forget_images"] = ["batch", 0]
    yield "a training pair for each of 8 pictures", graph(pictures, batch=batch)
    pictures = graph(pictures, batch=batch)
    pictures["2"]["inputs"]["concept"] = "astronaut + pop art"
    yield "goes with one concept", pictures
    back = node("TurpentineTakeBack", model=["1", 0], file="loras/gone.safetensors", any_base=False)
    yield "Choose another file", graph(loaded, b=back, x=save("b"))
    clip = graph(tiny)
    clip["8"]["inputs"]["model"] = "ViT-B-32/laion2b_s34b_b79k"
    yield "no node does unasked", clip
    fewer = graph(tiny)
    fewer["5"]["inputs"]["images"] = 1
    del fewer["8"], fewer["15"]  # which ask for as many pictures too
    yield "same size before and after", fewer
    method = graph(tiny)
    method["4"]["inputs"]["method"] = "finetune"
    method["16"]["inputs"]["projection"] = "per_layer"
    yield "projection", method
    yield "diffusers folder", graph(checkpoint, x=save("unlearn", "diffusers"))
    bridge = {id_: checkpoint[id_] for id_ in ("load", "bridge")}
    size = graph(bridge, x=save("bridge"))
    size["bridge"]["inputs"]["image_size"] = 100
    yield "multiple of 64", size
    lcm = graph(
        bridge, x=save("bridge"), lcm=node("ModelSamplingDiscrete", model=["load", 0], sampling="lcm", zsnr=False)
    )
    lcm["bridge"]["inputs"]["model"] = ["lcm", 0]
    yield "set to ModelSamplingDiscreteDistilled with LCM", lcm


@pytest.mark.parametrize(("message", "graph"), list(_mistakes()), ids=lambda it: it if isinstance(it, str) else "")
def test_mistakes_are_explained(message, graph, comfy, comfy_base):
    before = half_written(comfy_base)
    done = comfy.run(graph)
    assert done.status == "error"
    assert message in done.error and "\n" not in done.error
    assert done.messages["execution_error"]["exception_type"].endswith("UserError")
    assert half_written(comfy_base) == before


def half_written(base):
    """Runs without results, weights and other files without their end, in ComfyUI's output folder."""
    runs = {path for path in (base / "output/turpentine/runs").glob("*") if not (path / "results.json").is_file()}
    return runs | set((base / "output").rglob(".*.partial*"))


def test_a_diffusers_model_wired_into_a_sampler_is_explained(comfy):
    graph = native("sd15") | {id_: each for id_, each in short(shipped("1")).items() if id_ in "12"}
    graph["unlearn"]["inputs"] |= {"model": ["1", 0], "prompts": ["2", 0]}
    draw(graph, "x", ["unlearn", 1], ["load", 2])
    done = comfy.run(graph)
    assert "x" not in done.history["outputs"]
    assert "This model came from Model from diffusers" in done.error


def test_a_prompt_set_that_is_not_there_is_refused_before_anything_runs(comfy):
    graph = {"1": node("TurpentineLoadPromptSet", file="gone.json"), "2": node("PreviewAny", source=["1", 3])}
    with pytest.raises(HTTPError) as refused:
        comfy.run(graph)
    assert "no prompt set 'gone.json'" in refused.value.read().decode()
