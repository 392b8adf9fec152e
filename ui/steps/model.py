"""Step 1: choose a model and try a prompt."""

from typing import Any

import gradio as gr
import torch
from PIL import Image

from ..access import short_text
from ..page import DEVICE, PRIVATE, Page, told, why
from ..pictures import enlarged, shown
from ..render import render
from ..studio import seed_of


def build(page: Page) -> None:
    """Put the step on the page."""
    gr.Markdown("## Choose a model")
    why("model")
    with gr.Row():
        model = page.controls.choice(("model",), page.access.model_names(), scale=2, allow_custom_value=True)
        page.controls.choice(("device",), devices())
    recognised = gr.HTML(elem_id="recognised")
    gr.Markdown("### Try it")
    with gr.Row():
        with gr.Column(scale=2):
            prompt = gr.Textbox(label="Prompt", value="a photo of an astronaut", elem_id="try-prompt", max_length=500)
            seed = gr.Number(label="Seed", value=0, elem_id="try-seed", info="the same seed gives the same picture")
            draw = gr.Button("Draw", elem_id="try-draw")
        picture = gr.Image(label="The model's picture", interactive=False, elem_id="try-image", height=280, scale=1)
    page.next_button(2)
    page.after_build(lambda: _wire(page, model, recognised, draw, prompt, seed, picture))


def _wire(page: Page, model: Any, recognised: Any, draw: Any, prompt: Any, seed: Any, picture: Any) -> None:
    @told
    def recognise(*values: Any) -> str:
        recipe = page.recipe(values)
        return render("facts", facts=page.studio.describe(recipe.model, recipe.device))

    @told
    def try_it(text: str, number: float, *values: Any) -> Image.Image:
        recipe = page.recipe(values)
        drawn = page.studio.draw(
            recipe.model, recipe.device, short_text(text, "prompt"), seed_of(number), recipe.samples
        )
        return enlarged(shown(drawn, recipe, reveal=False))

    inputs = page.controls.inputs
    shared: dict[str, Any] = {"concurrency_id": DEVICE, "concurrency_limit": 1} | PRIVATE
    device = page.controls.components[("device",)]
    gr.on([model.change, device.change, page.demo.load], recognise, inputs, recognised, **shared)
    gr.on([draw.click, prompt.submit], try_it, [prompt, seed, *inputs], picture, **shared)


def devices() -> list[str]:
    """List the devices of this machine."""
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["auto", "cpu", *found, *(["mps"] if torch.backends.mps.is_available() else [])]
