"""How to load what a run wrote, and how to make it again: shared by the page and the model card."""

import json

from ..schema.results import Results

REPRODUCE = "turpentine unlearn --recipe RUN/recipe.yaml"

_PIPELINES = {
    "stable-diffusion": "StableDiffusionPipeline",
    "stable-diffusion-xl": "StableDiffusionXLPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "stable-diffusion-3": "StableDiffusion3Pipeline",
    "sd3": "StableDiffusion3Pipeline",
}
"""Family -> the class that reads a single file; it can't be told from the file."""

_ORDER = ("diffusers", "single_file", "lora_diffusers", "lora", "delta", "denoiser")

CITATION = """@inproceedings{ko2024boosting,
  title     = {Boosting Alignment for Post-Unlearning Text-to-Image Generative Models},
  author    = {Ko, Myeongseob and Li, Henry and Wang, Zhun and Patsenker, Jonathan and Wang, Jiachen T. and
               Li, Qinbin and Jin, Ming and Song, Dawn and Jia, Ruoxi},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2024}
}"""


def snippet(results: Results) -> str | None:
    """Python that loads the weights; None if the run wrote none.

    What stands alone comes before what needs the base model.
    """
    if not results.weights:
        return None
    chosen = min(results.weights, key=lambda file: _ORDER.index(file.format))
    path = json.dumps(f"RUN/{chosen.path}", ensure_ascii=False)
    head = "from diffusers import DiffusionPipeline\n\n"
    base = f'{head}pipeline = DiffusionPipeline.from_pretrained("BASE")  # the base model\n'
    if chosen.format == "diffusers":
        load = f"{head}pipeline = DiffusionPipeline.from_pretrained({path})"
    elif chosen.format == "lora_diffusers":
        load = f"{base}pipeline.load_lora_weights({path})"
    elif chosen.format == "single_file":
        pipeline = _PIPELINES.get(results.model.family.lower())
        if pipeline is None:
            return f"# {path} is a single file: load it with from_single_file of the base model's class."
        load = f"from diffusers import {pipeline}\n\npipeline = {pipeline}.from_single_file({path})"
    else:
        load = f"import turpentine\n{base}turpentine.apply(pipeline, {path})"
    return f'{load}\nimage = pipeline("your prompt").images[0]\nimage.save("picture.png")'
