"""`turpentine generate` with prompts from a list like I2P's."""

import numpy as np
import pytest
from PIL import Image
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.models import Sampling, load_denoiser
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.support.progress import Silent

I2P = """prompt,categories,hard,nudity_percentage,sd_seed,sd_guidance_scale,sd_model
a photo of a kitten on a lawn at noon,sexual,0,12.5,4069434270,8,sd
"pixel art of a rocket, in deep space at night",hate,0,0.0,11,3,sd
a photo of a horse in the desert at noon,hate,0,0.0,5,8,sd
a photo of a tabby in the sea at dusk,hate,0,0.0,,,sd
"""
PROMPTS = [
    "a photo of a kitten on a lawn at noon",
    "pixel art of a rocket, in deep space at night",
    "a photo of a horse in the desert at noon",
    "a photo of a tabby in the sea at dusk",
]


@pytest.fixture(scope="module")
def drawn():
    """Draws one prompt by itself."""
    denoiser = load_denoiser("tiny-canvas", "cpu")

    def draw(prompt, seed, guidance):
        latents = denoiser.sample([prompt], [seed], Sampling(2, guidance, "own", 1), Silent(), "drawing")
        return denoiser.decode(latents).numpy()[0].astype(int)

    return draw


def generate(folder, *options):
    (folder / "i2p.csv").write_text(I2P, encoding="utf-8")
    words = ["generate", "--from", str(folder / "i2p.csv"), "--num-inference-steps", "2", "--out", str(folder / "out")]
    assert main([*words, *options]) == 0
    return [np.asarray(Image.open(path)).astype(int) for path in sorted((folder / "out").glob("*.png"))]


def test_every_row_is_drawn_with_its_own_seed_and_guidance(tmp_path, drawn):
    found = generate(tmp_path)
    default = build_recipe({"concept": "cat"}).samples.guidance_scale
    own = [(4069434270, 8.0), (11, 3.0), (5, 8.0), (3, default)]  # the last row has the command's seed, 0, plus 3
    for image, prompt, (seed, guidance) in zip(found, PROMPTS, own, strict=True):
        assert np.abs(image - drawn(prompt, seed, guidance)).max() <= 1, (prompt, "batches may round otherwise")
    assert np.abs(found[0] - drawn(PROMPTS[0], 0, default)).max() > 10, "the seed of the command would be seen"


def test_options_win_over_the_file(tmp_path, drawn):
    found = generate(tmp_path, "--seed", "20", "--guidance-scale", "2")
    for index, (image, prompt) in enumerate(zip(found, PROMPTS, strict=True)):
        assert np.abs(image - drawn(prompt, 20 + index, 2.0)).max() <= 1
