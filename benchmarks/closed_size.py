"""The closed forms at the real size of Stable Diffusion 1.4 on this machine: seconds of each part of an edit.

    python -m turpentine.benchmarks.closed_size [--pairs 64]

Every layer of the UNet that a prompt enters has the shape of SD 1.4's (16 cross-attentions, keys and values over 768
channels) and random weights, and so has the text encoder, which is CLIP-L's (12 layers of 768, 77 tokens). The rest of
the UNet plays no part. What is measured is reading the prompts and solving for the weights.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel
from turpentine.pipeline.maths.parameters import text_entrances
from turpentine.pipeline.methods.closed_form import ClosedForm, gather
from turpentine.pipeline.methods.rece import RECE, RECEConfig
from turpentine.pipeline.methods.speed import SPEED, SPEEDConfig
from turpentine.pipeline.methods.uce import UCE, UCEConfig
from turpentine.pipeline.models.architectures import build_network, find_architecture
from turpentine.pipeline.models.protocol import Conditioning
from turpentine.pipeline.prompts import PromptSet
from turpentine.pipeline.support.files import write_text
from turpentine.pipeline.support.progress import Silent

RESULTS = Path(__file__).parent / "results" / "closed-size.json"
METHODS: dict[str, ClosedForm[Any]] = {
    "uce": UCE(UCEConfig()),
    "rece": RECE(RECEConfig()),
    "speed": SPEED(SPEEDConfig()),
}


class Encoder:
    """CLIP-L with random weights; a prompt's tokens are its bytes."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.config = CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
        )
        self.model = CLIPTextModel(self.config).eval()

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """{"prompt_embeds": (N, 77, 768)}."""
        rows = [[*text.encode()[:76], *[49407] * 77][:77] for text in prompts]
        return {"prompt_embeds": self.model(torch.tensor(rows))[0]}


def weights_of_sd14() -> dict[str, torch.Tensor]:
    """The layers that a prompt enters, in SD 1.4's shapes."""
    kind, config = find_architecture("sd14")
    with torch.device("meta"):
        shapes = text_entrances(dict(build_network(kind, config).named_parameters()))["prompt_embeds"]
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(each.shape, generator=generator) / 28 for name, each in shapes.items()}


def measure(pairs: int) -> dict[str, Any]:
    """Seconds of reading the prompts of a set, and of each method's solution."""
    prompts, encoder, weights = PromptSet.build("cat", n=pairs, n_test=0), Encoder(), weights_of_sd14()
    began = time.perf_counter()
    seen = gather(encoder, prompts.rows, Silent())
    found: dict[str, Any] = {
        "pairs": pairs,
        "threads": torch.get_num_threads(),
        "layers": len(weights),
        "weights": sum(each.numel() for each in weights.values()),
        "reading": time.perf_counter() - began,
    }
    for name, method in METHODS.items():
        own = {key: each.clone() for key, each in weights.items()}
        began = time.perf_counter()
        method.edit_weights(own, seen, Silent())
        found[name] = time.perf_counter() - began
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=64, metavar="N", help="forget/retain pairs; default 64")
    result = measure(parser.parse_args().pairs)
    write_text(RESULTS, json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
