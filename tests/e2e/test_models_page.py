"""The examples of docs/models.md, on a tiny random model."""

import re
import shlex
from pathlib import Path

import turpentine
from turpentine.pipeline.commands.main import build_parser

from ..support.tiny_models import build_family

PAGE = (Path(turpentine.__file__).parent / "docs" / "models.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_python_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, folder, single = PYTHON
    pipe = build_family("sd3-no-t5")
    pipe.save_pretrained("path/to/diffusers-folder")
    found = {}
    exec(folder, found)
    assert found["denoiser"].family == "stable-diffusion-3"
    Path("model.safetensors").write_bytes(
        next(Path("path/to/diffusers-folder/transformer").glob("*.safetensors")).read_bytes()
    )
    exec(single, found)
    assert type(found["denoiser"].pipeline) is type(pipe)

    Path("pairs.csv").write_text("forget,retain\n" + "".join(f"a cat {i},a dog {i}\n" for i in range(6)))
    small = (
        'batch_size=2, num_inference_steps=2, prompts={"file": "pairs.csv"}, '
        'audits={"images": 2, "retain_train_images": 1, "alignment": False}'
    )
    found = {"pipe": pipe}
    exec(own.replace("steps=2,", f"steps=2, {small},"), found)
    assert found["result"].pipeline is pipe and found["result"].results.training.steps == 2
    again = type(pipe).from_pretrained(
        found["result"].run / "weights/diffusers", text_encoder_3=None, tokenizer_3=None
    )  # fmt: skip
    trained = pipe.transformer.state_dict()
    assert all((value == trained[key]).all() for key, value in again.transformer.state_dict().items())


def test_command_lines_parse():
    lines = re.findall(r"^turpentine (\S.*)$", PAGE, flags=re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line)
        assert build_parser(words[0]).parse_args(words).run
