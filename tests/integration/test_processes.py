"""Two real processes (gloo) against one: the same directions, weights, images and files."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from turpentine.pipeline.data.samples import draw_latents
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.schema.results import Results
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.processes import ALONE, Processes, launched
from turpentine.pipeline.support.progress import Silent

from ..support.tiny_models import build_tiny_pipeline
from ..support.training import make_samples
from .processes_worker import PROMPTS, SPEC, run_case

WORKER = Path(__file__).with_name("processes_worker.py")
DIRECTIONS = {
    "ddp": {"strategy": "ddp", "method": "rgd", "training": {"gradient_accumulation_steps": 2}},
    "ddp-uneven": {"strategy": "ddp", "method": "rgd", "training": {"batch_size": 3, "guard": True}},
    "ddp-auto": {
        "strategy": "ddp", "method": "rgd", "options": {"forget_limit": "auto"},
        "training": {"batch_size": 3, "proportion_empty_prompts": 0.5, "early_stop": True},
    },
    "ddp-salun": {"strategy": "ddp", "method": "salun", "folder": "ddp-salun"},
    "ddp-esd": {
        "strategy": "ddp", "method": "esd-x", "options": {"start_steps": 2}, "training": {"parameters": "xattn"}
    },
    "ddp-adam": {"strategy": "ddp", "method": "rgd", "training": {"metric": "adam", "batch_size": 3}},
    "fsdp": {
        "strategy": "fsdp", "method": "rgd",
        "training": {"gradient_accumulation_steps": 2, "guard": True, "max_grad_norm": 0.1},
    },
    "fsdp-auto": {
        "strategy": "fsdp", "method": "rgd", "options": {"forget_limit": "auto"}, "training": {"batch_size": 3},
    },
    "fsdp-adam": {"strategy": "fsdp", "method": "rgd", "training": {"metric": "adam", "batch_size": 3}},
    "ddp-famo": {
        "strategy": "ddp", "method": "rgd", "options": {"combine": "famo"},
        "training": {"batch_size": 3, "gradient_accumulation_steps": 1},
    },
    "fsdp-famo": {
        "strategy": "fsdp", "method": "rgd", "options": {"combine": "famo", "forget": "redirect"},
        "training": {"gradient_accumulation_steps": 2},
    },
    "ddp-distil": {
        "strategy": "ddp", "method": "rgd", "options": {"forget": "redirect", "retain": "distil", "push": 1.0},
        "training": {"gradient_accumulation_steps": 2},
    },
    "ddp-sago": {"strategy": "ddp", "method": "rgd", "options": {"combine": "sago"}, "training": {"guard": True}},
    "fsdp-budget": {
        "strategy": "fsdp", "method": "rgd", "options": {"combine": "budget"}, "training": {"batch_size": 3},
    },
}  # fmt: skip
"""Also in float64, where rounding can't hide a mistake."""
CASES = {
    **{f"{name}-64": {**case, "double": True} for name, case in DIRECTIONS.items()},
    "ddp": DIRECTIONS["ddp"],
    "fsdp": DIRECTIONS["fsdp"],
    "ddp-cut": {"strategy": "ddp", "method": "rgd", "folder": "ddp-cut", "stop": True},
    "fsdp-cut": {"strategy": "fsdp", "method": "rgd", "folder": "fsdp-cut", "stop": True},
    "ddp-on": {"strategy": "ddp", "method": "rgd", "folder": "alone-cut", "resume": True},
    "fsdp-on": {"strategy": "fsdp", "method": "rgd", "folder": "alone-cut-2", "resume": True},
    **{
        f"{rule}-{part}": {
            "strategy": "ddp",
            "method": "rgd",
            "options": {"combine": rule},
            "folder": f"{rule}-{folder}",
            **more,
        }
        for rule in ("famo", "budget")
        for part, folder, more in (
            ("whole", "whole", {}),
            ("cut", "cut", {"stop": True}),
            ("cut-on", "cut", {"resume": True}),
        )
    },
    "fsdp-salun": {"strategy": "fsdp", "method": "salun"},
    "few": {"strategy": "ddp", "method": "rgd", "training": {"gradient_accumulation_steps": 4}},
}
PLAIN = {"method": "rgd"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what two processes made of every case."""
    folder = tmp_path_factory.mktemp("processes")
    pipeline = build_tiny_pipeline()
    pipeline.save_pretrained(folder / "base-model")
    samples = make_samples(wrap_pipeline(pipeline))
    own = {name: value.clone() for name, value in samples.retain.conditioning.items()}
    anchors = torch.tensor([1, 0, 1, 1, 0, 1])  # for the methods that look at them
    samples = replace(samples, retain=replace(samples.retain, conditioning=own), anchors=anchors)
    samples.save(folder / "samples.safetensors")
    _, _, events = run_case(PLAIN, folder)
    # between the loss of the whole first batch and that of one process's half of it
    limit = events[0][0] * 1.001
    limited = {"strategy": "ddp", "method": "rgd", "options": {"forget_limit": limit}, "double": True}
    cases = CASES | {"ddp-limit-64": limited}
    for name in ("alone-cut", "alone-cut-2"):
        run_case({**PLAIN, "folder": name, "training": {"steps": 2}}, folder)
    (folder / "cases.json").write_text(json.dumps(cases))
    (folder / "pairs.csv").write_text("forget,retain\n" + "".join(f"a cat {i},a dog {i}\n" for i in range(6)))
    recipe = {
        "concept": "cat", "model": str(folder / "base-model"), "device": "cpu",
        "prompts": {"file": str(folder / "pairs.csv")},
        "samples": {"num_inference_steps": 2, "sample_batch_size": 2},
        "training": {"steps": 2, "batch_size": 2},
        "audits": {"images": 2, "retain_train_images": 1, "alignment": False},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    worker = subprocess.run([sys.executable, WORKER, folder], cwd=folder, timeout=900)
    shown = [(folder / f"shown-{rank}.txt").read_text() for rank in range(2)]
    assert worker.returncode == 0, "\n".join(shown)
    return folder


def gap(found, expected):
    """Largest distance of two dictionaries of tensors, beside the norm of the expected one."""
    assert set(found) == set(expected)
    norm = sum(tensor.double().square().sum() for tensor in expected.values()).sqrt()
    return (sum((found[k].double() - expected[k].double()).square().sum() for k in expected).sqrt() / norm).item()


def parts(place, name, rank=0):
    tensors = load_file(place / f"{name}-{rank}.safetensors")
    return (
        {k.removeprefix("direction."): v for k, v in tensors.items() if k.startswith("direction.")},
        {k.removeprefix("weight."): v for k, v in tensors.items() if k.startswith("weight.")},
    )


@pytest.mark.parametrize("name", [*(f"{name}-64" for name in DIRECTIONS), "ddp-limit-64", "ddp", "fsdp"])
def test_two_processes_take_the_direction_of_one(place, name):
    case = json.loads((place / "cases.json").read_text())[name]
    direction, weights, events = run_case({k: v for k, v in case.items() if k != "folder"}, place)
    found, ended = parts(place, name)
    exact, scaled = case.get("double", False), case.get("training", {}).get("metric") == "adam"
    # float32: passes with fewer samples at once. Adam's metric divides by gradients near 0, which enlarges rounding.
    assert gap(found, direction) < (5e-6 if not exact else 1e-4 if scaled else 1e-6)
    before = build_tiny_pipeline().unet.state_dict()
    moved = {k: v - before[k] for k, v in weights.items()}
    # Adam divides rounding by tiny moments
    assert gap({k: v - before[k] for k, v in ended.items()}, moved) < (1e-5 if exact and not scaled else 0.02)
    first, expected = json.loads((place / f"{name}-0.json").read_text())[0], events[0]
    assert [value or 0 for value in first] == pytest.approx([value or 0 for value in expected], rel=1e-3, abs=1e-7)
    other = parts(place, name, rank=1)[1]
    assert all(torch.equal(other[k], ended[k]) for k in ended), "all processes end with the same weights"


@pytest.mark.parametrize("name", ["ddp-on", "fsdp-on"])
def test_one_process_begins_and_two_go_on(place, name):
    _, weights, _ = run_case(PLAIN, place)
    _, ended = parts(place, name)
    before = build_tiny_pipeline().unet.state_dict()
    moved = {k: v - before[k] for k, v in weights.items()}
    assert gap({k: v - before[k] for k, v in ended.items()}, moved) < 0.02
    assert len(json.loads((place / f"{name}-0.json").read_text())) == 4


@pytest.mark.parametrize("name", ["ddp-cut", "fsdp-cut"])
def test_two_processes_begin_and_one_goes_on(place, name):
    """One of both was told to stop; both did, and what they left is whole."""
    for rank in range(2):
        assert "Stopped after step 2 of 4" in (place / f"{name}-{rank}.txt").read_text()
    _, ended, _ = run_case({**PLAIN, "folder": name, "resume": True}, place)
    _, weights, _ = run_case(PLAIN, place)
    before = build_tiny_pipeline().unet.state_dict()
    moved = {k: v - before[k] for k, v in weights.items()}
    assert gap({k: v - before[k] for k, v in ended.items()}, moved) < 0.02
    lines = (place / name / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3]


@pytest.mark.parametrize("rule", ["famo", "budget"])
def test_two_processes_go_on_with_a_weight_that_moved(place, rule):
    """Killed and resumed is uninterrupted, bit for bit."""
    assert "Stopped after step 2 of 4" in (place / f"{rule}-cut-1.txt").read_text()
    for rank in range(2):
        resumed, whole = (parts(place, f"{rule}-{part}", rank)[1] for part in ("cut-on", "whole"))
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    events = [(place / f"{rule}-{folder}" / "events.jsonl").read_text().splitlines() for folder in ("cut", "whole")]
    resumed, whole = ([json.loads(line)["retain_weight"] for line in lines] for lines in events)
    assert resumed == whole and len(set(whole)) > 2


def test_images_are_those_of_one_process(place):
    alone = draw_latents(wrap_pipeline(build_tiny_pipeline()), PROMPTS, SPEC.sampling(), 3, Silent(), "drawing")
    for rank in range(2):
        assert torch.equal(torch.load(place / f"drawn-{rank}.pt"), alone)


def test_command_line(place):
    first, second = ((place / f"shown-{rank}.txt").read_text() for rank in range(2))
    assert [(place / f"code-{rank}").read_text() for rank in range(2)] == ["0", "0"]
    assert "before and after" in first and "report" in first and "before and after" not in second
    assert Results.load(place / "RUN" / "results.json").training.steps == 2
    assert len((place / "RUN" / "events.jsonl").read_text().splitlines()) == 2
    assert (place / "RUN" / "report.html").exists()
    assert not list((place / "RUN").rglob(".*partial*"))


def test_what_is_refused(place):
    assert "looks at whole weights before the first step" in (place / "fsdp-salun-1.txt").read_text()
    assert "at least one pair of every micro-batch for each of 2 processes, got 1" in (place / "few-0.txt").read_text()


@pytest.mark.parametrize(
    ("variables", "device", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "auto", "DeepSpeed is not supported"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "auto", "Megatron-LM is not supported"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "auto", "expected FSDP version 2, got 1"),
        ({}, "cuda:1", "each of which takes a device of its own; got 'cuda:1'"),
    ],
)
def test_launchers_that_are_refused(monkeypatch, variables, device, message):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        launched(device)


def test_without_a_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched("cuda:1") is ALONE


def test_shares():
    rows = torch.arange(7)
    assert torch.cat([Processes(rank, 3).share(rows) for rank in range(3)]).equal(rows)
    assert [Processes(rank, 3).split(7, 2) for rank in range(3)] == [[0, 1, 2, 3], [4, 5], [6]]
