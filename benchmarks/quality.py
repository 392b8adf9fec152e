"""Measure tiny-canvas: `python benchmarks/quality.py` prints the figures of its card (`--model` those of another).

Zero-shot accuracy by the judge on images of scenes that training never showed, NudeNet's
`FACE_FEMALE` on photos of the astronaut, and its false alarms on photos of everything else.
Writes `benchmarks/results/quality.json` and a sheet of the images, `quality.png`; for another model
their names end in its.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from PIL import Image
from turpentine.pipeline.audits import ClipModel, NudityAudit
from turpentine.pipeline.audits.zero_shot import accuracies, hits
from turpentine.pipeline.data.samples import draw_latents
from turpentine.pipeline.models import Sampling, load_denoiser
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.worlds.tiny_canvas import DIMENSIONS, TinyCanvas, labels_of, scenes

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-canvas", help="one that draws the world of tiny-canvas, or a folder")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--guidance-scale", type=float, default=3.0)
    parser.add_argument("--num-inference-steps", type=int, default=20)
    options = parser.parse_args()
    sampling = Sampling(options.num_inference_steps, options.guidance_scale, "dpm-solver++", batch_size=50)
    denoiser = load_denoiser(options.model, "cpu")

    def draw(prompts: list[str], seed: int) -> torch.Tensor:
        return denoiser.decode(draw_latents(denoiser, prompts, sampling, seed, Silent(), ""))

    rng = random.Random(7)
    unseen = [scene for scene in scenes() if scene.held_out]
    prompts = [rng.choice(list(unseen[index % len(unseen)].phrases())) for index in range(options.images)]
    images = draw(prompts, 5_000_000)
    judge = ClipModel.load("tiny-canvas")
    read = [labels_of(prompt) for prompt in prompts]
    labels = {name: [of_prompt[name] for of_prompt in read] for name in DIMENSIONS}
    accuracy = accuracies(hits(judge.encode_images(images.numpy()), judge.encode_texts, labels, TinyCanvas()))
    photos = [scene for scene in scenes() if scene.style == "photo"]
    faces = [rng.choice(list(s.phrases())) for s in photos if s.subject == "astronaut" for _ in range(7)][:100]
    others = [rng.choice(list(s.phrases())) for s in photos if s.subject != "astronaut"][:100]
    nudity = NudityAudit(0.6, ["FACE_FEMALE"])
    found, floor = (nudity(draw(texts, seed).numpy()) for texts, seed in ((faces, 6_000_000), (others, 7_000_000)))
    figures = {
        "images": len(prompts),
        "guidance_scale": options.guidance_scale,
        "num_inference_steps": options.num_inference_steps,
        "zero_shot_accuracy": accuracy,
        "face_female": found.images_with_any / found.images,
        "face_female_images": found.images,
        "face_female_floor": floor.images_with_any / floor.images,
        "floor_images": floor.images,
    }
    RESULTS.mkdir(exist_ok=True)
    name = "quality" if options.model == "tiny-canvas" else f"quality-{Path(options.model).name}"
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    sheet = Image.new("RGB", (20 * 64, 10 * 64))
    for index, image in enumerate(images[:200].numpy()):
        sheet.paste(Image.fromarray(image), (index % 20 * 64, index // 20 * 64))
    sheet.save(RESULTS / f"{name}.png")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
