"""Making the training data: ours beside the reference's way, and what unlearning makes of either.

    python -m turpentine.benchmarks.data_making [--concept NAME] [--quick]

On tiny-canvas with its shipped `rgd` recipe. Both ways draw the same prompts from the same noise.

- `ours` (`SampleSet.draw`): DPM-Solver++, 20 steps; latents are kept; each distinct prompt is embedded once.
- `fewer_steps`: the same with 15 steps (`--num-inference-steps 15`).
- `reference` (Ko et al. 2024, Appendix C, and their published procedure): PNDM, 50 steps; images are decoded and
  written as PNG files; every epoch reads and encodes every image and embeds its prompt again. Batches are as
  large as ours. One epoch's encoding is measured, and counts once for each epoch of the recipe's steps.

Seconds are of the process (`time.process_time`, one thread), which a busy machine does not lengthen. Then the
same recipe trains on each set from the same weights, and is audited with the same prompts and seeds.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import PNDMScheduler
from PIL import Image
from turpentine.benchmarks.canvas import QUICK, Bench, figures, recipe_of
from turpentine.pipeline.data.samples import Samples, SampleSet, draw_latents
from turpentine.pipeline.methods import build_method
from turpentine.pipeline.models import Denoiser, Sampling
from turpentine.pipeline.prompts import PromptSet
from turpentine.pipeline.run.prompts import prompts_of
from turpentine.pipeline.run.samples import samples_of
from turpentine.pipeline.schema.recipe import Recipe
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.files import write_text
from turpentine.pipeline.support.progress import Silent, batches
from turpentine.pipeline.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results" / "data-making.json"
FEWER = 15
"""Steps of DPM-Solver++ beside the recipe's 20."""
SHOWN = ("UA", "IRA", "CRA", "forget", "retain_train", "retain_test")


def make_as_reference(
    denoiser: Denoiser, prompts: PromptSet, recipe: Recipe, folder: Path, seed: int
) -> tuple[SampleSet, dict[str, float]]:
    """D_f and D_r by way of image files; also the seconds of drawing and of one epoch's encoding."""
    own = denoiser.pipeline.scheduler
    sampling = Sampling(50, recipe.samples.for_training().guidance_scale, "own", recipe.samples.sample_batch_size)
    parts, seconds = {}, {"draw": 0.0, "encode_an_epoch": 0.0}
    for term, texts in (("forget", prompts.forget_train), ("retain", prompts.retain_train)):
        began = time.process_time()
        denoiser.pipeline.scheduler = PNDMScheduler.from_config(own.config, skip_prk_steps=True)
        drawn = draw_latents(denoiser, texts, sampling, seed, Silent(), term)
        denoiser.pipeline.scheduler = own
        for index, image in enumerate(denoiser.decode(drawn).numpy()):
            Image.fromarray(image).save(folder / f"{term}-{index}.png")
        seconds["draw"] += time.process_time() - began
        began = time.process_time()
        latents, conditioning = [], []
        for rows in batches(range(len(texts)), recipe.training.batch_size):
            images = np.stack([np.asarray(Image.open(folder / f"{term}-{row}.png")) for row in rows])
            latents.append(denoiser.encode_images(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).cpu())
            conditioning.append(denoiser.encode_prompts([texts[row] for row in rows]))
        seconds["encode_an_epoch"] += time.process_time() - began
        joined = {name: torch.cat([part[name] for part in conditioning]) for name in conditioning[0]}
        parts[term] = Samples(torch.cat(latents), joined, torch.arange(len(texts)))
    return SampleSet.in_order(parts["forget"], parts["retain"]), seconds


def compare(recipe: Recipe) -> dict[str, Any]:
    """Seconds of both ways, and the audits of what they lead to."""
    bench = Bench()
    prompts = prompts_of(resolve(recipe))
    epochs = recipe.training.steps * recipe.training.batch_size / len(prompts.forget_train)
    fewer = recipe.model_copy(update={"samples": recipe.samples.model_copy(update={"num_inference_steps": FEWER})})
    made, seconds = {}, {}
    for name, how in (("ours", recipe), ("fewer_steps", fewer)):
        began = time.process_time()
        made[name] = samples_of(bench.denoiser, prompts, how, Silent())
        seconds[name] = {"total": time.process_time() - began}
    with TemporaryDirectory() as folder:
        made["reference"], spent = make_as_reference(
            bench.denoiser, prompts, recipe, Path(folder), recipe.seed * 10_000
        )
    seconds["reference"] = spent | {"total": spent["draw"] + epochs * spent["encode_an_epoch"]}
    found: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "epochs": epochs,
        "before": _shown(figures(bench.before(recipe))),
    }
    for name, samples in made.items():
        bench.denoiser.module.load_state_dict(bench.weights)
        Trainer(bench.denoiser, build_method(recipe.method), samples, recipe.training, recipe.seed).train()
        found[name] = {"seconds": seconds[name]} | _shown(figures(bench.audit(recipe)))
        if name != "reference":
            own = seconds[name]["total"]
            found[name]["faster"] = seconds["reference"]["total"] / own
            found[name]["faster_in_one_epoch"] = (spent["draw"] + spent["encode_an_epoch"]) / own
    return found


def _shown(row: dict[str, Any]) -> dict[str, float]:
    return {name: row[name] for name in SHOWN if name in row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concept", default="astronaut", help="default astronaut")
    parser.add_argument("--quick", action="store_true", help="so small that the figures mean nothing; writes no file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = recipe_of(options.concept, QUICK if options.quick else {}, device="cpu")
    result = compare(recipe)
    text = json.dumps(result, indent=1) + "\n"
    if not options.quick:
        write_text(RESULTS, text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
