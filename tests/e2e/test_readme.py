"""What the README promises: its commands, its files, its Python."""

import re
from pathlib import Path

from turpentine.benchmarks.bench import RESULTS
from turpentine.benchmarks.store import Store
from turpentine.benchmarks.table import Options
from turpentine.benchmarks.tables import concepts
from turpentine.pipeline.commands.main import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_two_commands_are_there():
    lines = README.splitlines()
    assert lines.count('pip install -c constraints.txt -e ".[all]" && turpentine demo') == 1
    assert lines.count('pip install -c constraints.txt -e ".[all,test]" && pytest') == 1
    script = (ROOT / ".ci" / "run").read_text()
    assert 'pip install -q -c constraints.txt -e ".[all,test]"\n' in script
    assert "\npytest\n" in script


def test_every_command_line_parses():
    lines = re.findall(r"^turpentine (\S.*)$", README, flags=re.MULTILINE)
    assert len(lines) >= 5
    import shlex

    for line in lines:
        words = shlex.split(line.split("#")[0])
        assert build_parser(words[0]).parse_args(words).run


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_python_example(tmp_path, tiny_pipeline, monkeypatch):
    """The README's call, on a tiny random pipeline of the same class."""
    import turpentine

    monkeypatch.chdir(tmp_path)
    prompts = tmp_path / "pairs.csv"
    prompts.write_text("forget,retain\n" + "".join(f"a cat {i},a dog {i}\n" for i in range(6)))
    result = turpentine.unlearn(
        tiny_pipeline,
        concept="cat",
        steps=2,
        batch_size=2,
        num_inference_steps=2,
        prompts={"file": str(prompts)},
        audits={"images": 2, "retain_train_images": 1, "alignment": False},
    )
    assert result.pipeline is tiny_pipeline
    assert result.results.training.steps == 2
    assert (result.run / "report.html").exists()
    again = type(tiny_pipeline).from_pretrained(result.run / "weights/diffusers")
    assert again.unet.config.sample_size == tiny_pipeline.unet.config.sample_size


def test_the_headline_table_is_the_measured_one():
    records = Store(RESULTS / "canvas.json").records
    assert concepts.headline({cell.key: records[cell.key] for cell in concepts.cells(Options())}) in README
