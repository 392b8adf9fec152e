"""What the README promises: its commands, its files, its Python."""

import re
from pathlib import Path

import torch
from turpentine.benchmarks.bench import RESULTS
from turpentine.benchmarks.store import Store
from turpentine.benchmarks.table import Options
from turpentine.benchmarks.tables import concepts

from ..support import pages

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_two_commands_are_there():
    lines = README.splitlines()
    assert lines.count('pip install -c constraints.txt -e ".[all]" && turpentine demo') == 1
    assert lines.count('pip install -c constraints.txt -e ".[all,test]" && pytest') == 1
    script = (ROOT / ".ci" / "run").read_text()
    assert 'pip install -q -c constraints.txt -e ".[all,test]"\n' in script
    assert "\npytest\n" in script


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("http") or (ROOT / link).exists(), link


def adapted(code: str, **changes: str) -> str:
    """The README's own text with some of its words exchanged, each of which stands there once."""
    for old, new in changes.items():
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    return code


def test_python_examples(tmp_path, tiny_pipeline, monkeypatch):
    """Both examples as they stand, but for the model's path, the run's path and the size."""
    monkeypatch.chdir(tmp_path)
    tiny_pipeline.save_pretrained("model")
    Path("pairs.csv").write_text("forget,retain\n" + "".join(f"a cat {i},a dog {i}\n" for i in range(6)))
    small = {
        "batch_size": 2,
        "num_inference_steps": 2,
        "prompts": {"file": "pairs.csv"},
        "audits": {"images": 2, "retain_train_images": 1, "alignment": False},
    }
    unlearn, load = pages.python(ROOT / "README.md")
    names = {"small": small}
    exec(adapted(unlearn, **{'"path/or/hub-id"': '"model"', "steps=100": "steps=2, **small"}), names)
    result = names["result"]
    assert result.pipeline is names["pipe"]
    assert result.results.training.steps == 2 and result.results.audits.after is not None
    assert (result.run / "report.html").exists()
    exec(adapted(load, **{"runs/cat-rgd-20260101-120000": result.run.as_posix()}), names)
    after = names["pipe"].unet.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in result.pipeline.unet.state_dict().items())
    assert not torch.equal(after["conv_in.weight"], tiny_pipeline.unet.conv_in.weight)


def test_the_headline_table_is_the_measured_one():
    records = Store(RESULTS / "canvas.json").records
    assert concepts.headline({cell.key: records[cell.key] for cell in concepts.cells(Options())}) in README
