"""A real ComfyUI server on loopback, for tests."""

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

from .websocket import Listener

MODELS = ("checkpoints", "diffusion_models", "loras", "vae", "diffusers")
_JPEG_PREVIEW = bytes([0, 0, 0, 1, 0, 0, 0, 1])
"""Two numbers before a picture that a node shows: a preview, in JPEG."""


@dataclass
class Done:
    """How a graph ended.

    Attributes:
        status: "success" or "error".
        history: what ComfyUI remembers of it.
        server: who ran it.
        told: what its editor was told on the way: (type, data), a preview as ("preview", its JPEG).
    """

    status: str
    history: dict[str, Any]
    server: "ComfyUI"
    told: list[tuple[str, Any]]

    @property
    def messages(self) -> dict[str, Any]:
        return dict(self.history.get("status", {}).get("messages", []))

    @property
    def error(self) -> str:
        """Of what failed, or of a node that was not run because of what came in."""
        return "\n".join(data["exception_message"].strip() for kind, data in self.told if kind == "execution_error")

    @property
    def cached(self) -> set[str]:
        return set(self.messages["execution_cached"]["nodes"])

    def progress(self, node: str) -> list[tuple[int, int]]:
        """(done, of how many) as they were told for a node."""
        told = [data for kind, data in self.told if kind == "progress" and data["node"] == node]
        return [(data["value"], data["max"]) for data in told]

    @property
    def previews(self) -> list[Image.Image]:
        """Pictures that nodes showed while they worked."""
        return [Image.open(io.BytesIO(jpeg)) for kind, jpeg in self.told if kind == "preview"]

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
                self.told: list[tuple[str, Any]] = []
                self.listener = Listener(int(self.address.rpartition(":")[2]), "/ws?clientId=test", self._hear)
                return self
            except OSError:
                assert self.process.poll() is None, self.log()[-3000:]
                time.sleep(0.2)
        raise TimeoutError(self.log()[-3000:])

    def _hear(self, message: str | bytes) -> None:
        if isinstance(message, str):
            event = json.loads(message)
            self.told.append((event["type"], event["data"]))
        elif message[:8] == _JPEG_PREVIEW:
            self.told.append(("preview", message[8:]))

    def __exit__(self, *_: object) -> None:
        self.listener.close()
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
        self.told.clear()
        id_ = self.post("/prompt", {"prompt": graph, "client_id": "test"})["prompt_id"]
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            history = self.get(f"/history/{id_}").get(id_)
            if history and ("executing", {"node": None, "prompt_id": id_}) in self.told:
                return Done(history["status"]["status_str"], history, self, list(self.told))
            if stop_when and stop_when():
                self.post("/interrupt", {})
                stop_when = None
            time.sleep(0.1)
        raise TimeoutError(self.log()[-3000:])
