"""A real ComfyUI server on loopback, for tests, and a checkpoint small enough for it."""

import io
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MODELS = ("checkpoints", "diffusion_models", "loras", "vae", "diffusers")


@dataclass
class Done:
    """How a graph ended."""

    status: str
    history: dict[str, Any]
    server: "ComfyUI"

    @property
    def messages(self) -> dict[str, Any]:
        return dict(self.history.get("status", {}).get("messages", []))

    @property
    def error(self) -> str:
        return self.messages.get("execution_error", {}).get("exception_message", "").strip()

    @property
    def cached(self) -> set[str]:
        return set(self.messages["execution_cached"]["nodes"])

    def text(self, node: str) -> str:
        return "".join(self.history["outputs"][node]["text"])

    def pixels(self, node: str) -> np.ndarray:
        found = []
        for image in self.history["outputs"][node]["images"]:
            with Image.open(io.BytesIO(self.server.get("/view?" + urllib.parse.urlencode(image), raw=True))) as opened:
                found.append(np.asarray(opened.convert("RGB")).astype(int))
        return np.stack(found)


class ComfyUI:
    """Start it with `with`; `run` takes graphs in API form."""

    def __init__(self, comfyui: Path, python: str, base: Path, pack: Path) -> None:
        self.base = base
        for folder in ("custom_nodes", "input", "output", "temp", "user", *(f"models/{kind}" for kind in MODELS)):
            (base / folder).mkdir(parents=True, exist_ok=True)
        link = base / "custom_nodes" / "turpentine"
        if not link.exists():
            link.symlink_to(pack, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self.address.rpartition(":")[2]
        self.command = [
            python,
            "main.py",
            "--cpu",
            "--listen",
            "127.0.0.1",
            "--port",
            port,
            "--base-directory",
            str(base),
        ]
        self.command += ["--disable-api-nodes", "--disable-auto-launch", "--database-url", "sqlite:///:memory:"]
        self.comfyui, self.log_path = comfyui, base / "server.log"

    def __enter__(self) -> "ComfyUI":
        hidden = ("PYTHONPATH", "PYTHONHOME")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.comfyui, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        for _ in range(3000):
            try:
                self.get("/system_stats")
                return self
            except OSError:
                assert self.process.poll() is None, self.log()[-3000:]
                time.sleep(0.2)
        raise TimeoutError(self.log()[-3000:])

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def get(self, path: str, raw: bool = False) -> Any:
        with urllib.request.urlopen(self.address + path, timeout=120) as answer:
            data = answer.read()
        return data if raw else json.loads(data)

    def post(self, path: str, content: dict[str, Any]) -> Any:
        body = json.dumps(content).encode()
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            data = answer.read()
        return json.loads(data) if data else None

    def run(self, graph: dict[str, Any], stop_when: Callable[[], bool] | None = None, timeout: float = 900) -> Done:
        """Queue a graph and wait for its end; press cancel once when `stop_when` says so."""
        id_ = self.post("/prompt", {"prompt": graph})["prompt_id"]
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            history = self.get(f"/history/{id_}").get(id_)
            if history:
                return Done(history["status"]["status_str"], history, self)
            if stop_when and stop_when():
                self.post("/interrupt", {})
                stop_when = None
            time.sleep(0.1)
        raise TimeoutError(self.log()[-3000:])


def write_tiny_checkpoint(path: Path) -> None:
    """A Stable Diffusion 1.5-class checkpoint with random weights, as small as ComfyUI takes one."""
    import torch
    from diffusers import AutoencoderTiny, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel
    from turpentine.pipeline.weights.layouts import denoiser_layout, text_encoder_layout

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(320,), layers_per_block=1, cross_attention_dim=768, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type="UNetMidBlock2DCrossAttn",
    )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
        )
    )  # fmt: skip
    tensors = {}
    for prefix, module, layout in (
        ("model.diffusion_model.", unet, denoiser_layout(unet)),
        ("cond_stage_model.transformer.", text, text_encoder_layout(text)),
    ):
        state = module.state_dict()
        tensors |= {prefix + name: entry.to_original(state) for name, entry in layout.items()}
    for name, tensor in AutoencoderTiny().state_dict().items():
        part, _, number, rest = name.split(".", 3)
        place = int(number) + (part == "decoder")  # the original decoder begins with a clamp
        tensors[f"first_stage_model.taesd_{part}.{place}.{rest}"] = tensor
    half = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file(half, path)
