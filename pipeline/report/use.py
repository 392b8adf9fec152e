"""How to load what a run wrote, and how to make it again: shared by the page and the model card."""

import json

from ..results import Results

REPRODUCE = "turpentine unlearn --recipe RUN/recipe.yaml"

_PIPELINES = {
    "stable-diffusion": "StableDiffusionPipeline",
    "stable-diffusion-xl": "StableDiffusionXLPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "stable-diffusion-3": "StableDiffusion3Pipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
}
"""Family -> the class that reads a single file; it can't be told from the file."""

CITATION = """@inproceedings{ko2024boosting,
  title     = {Boosting Alignment for Post-Unlearning Text-to-Image Generative Models},
  author    = {Ko, Myeongseob and Li, Henry and Wang, Zhun and Patsenker, Jonathan and Wang, Jiachen T. and
               Li, Qinbin and Jin, Ming and Song, Dawn and Jia, Ruoxi},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2024}
}"""


def snippet(results: Results) -> str | None:
    """Python that loads the weights with diffusers; None if the run wrote none.

    A diffusers folder is preferred, then a LoRA, then a single file.
    """

    def rank(kind: str) -> int:
        return 0 if "diffusers" in kind.lower() else 1 if "lora" in kind.lower() else 2

    if not results.weights:
        return None
    chosen = min(results.weights, key=lambda file: rank(file.format))
    path = json.dumps(f"RUN/{chosen.path}", ensure_ascii=False)
    kind = rank(chosen.format)
    head = "from diffusers import DiffusionPipeline\n\n"
    if kind == 0:
        load = f"{head}pipeline = DiffusionPipeline.from_pretrained({path})"
    elif kind == 1:
        load = (
            f'{head}pipeline = DiffusionPipeline.from_pretrained("BASE")  # the base model\n'
            f"pipeline.load_lora_weights({path})"
        )
    else:
        pipeline = _PIPELINES.get(results.model.family.lower())
        if pipeline is None:
            return f"# {path} is a single file: load it with from_single_file of the base model's pipeline class."
        load = f"from diffusers import {pipeline}\n\npipeline = {pipeline}.from_single_file({path})"
    return f'{load}\nimage = pipeline("your prompt").images[0]\nimage.save("picture.png")'
