"""Draw with models for the page. The last two stay loaded."""

import threading
from collections import OrderedDict
from pathlib import Path

import torch
from PIL import Image

from ..pipeline.data.samples import draw_latents
from ..pipeline.models import Denoiser, load_denoiser
from ..pipeline.models.placing import staged
from ..pipeline.prompts import PromptSet
from ..pipeline.run.cost import Estimate, estimate, free_memory, memory_needed
from ..pipeline.run.stages import drawing_stages
from ..pipeline.schema.recipe import Recipe, SampleSection, TrainingSection
from ..pipeline.support.errors import UserError
from ..pipeline.support.progress import Silent
from ..pipeline.support.text import size

_KEPT = 2  # models in memory: one before and one after


class Studio:
    """Loads models and draws with them, one request at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, str, float], Denoiser] = OrderedDict()

    def denoiser(self, model: str, device: str) -> Denoiser:
        """Load a model, or find it loaded. `Access.model` has checked `model`."""
        changed = Path(model).stat().st_mtime if Path(model).exists() else 0.0
        key = (model, device, changed)
        if key not in self._loaded:
            while len(self._loaded) >= _KEPT:
                self._loaded.popitem(last=False)
            self._loaded[key] = load_denoiser(model, device)
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def draw(self, model: str, device: str, prompt: str, seed: int, spec: SampleSection) -> Image.Image:
        """Draw one prompt; the same seed gives the same picture."""
        with self._lock:
            denoiser = self.denoiser(model, device)
            with staged(denoiser, drawing_stages(spec, denoiser.device)):
                latents = draw_latents(denoiser, [prompt], spec.sampling(), seed, Silent(), "drawing")
            return Image.fromarray(denoiser.decode(latents).numpy()[0])

    def describe(self, model: str, device: str) -> dict[str, str]:
        """Describe a model, as label -> text.

        Raises:
            UserError: the model can't be loaded.
        """
        with self._lock:
            denoiser = self.denoiser(model, device)
        parts = {name: part for name, part in denoiser.pipeline.components.items() if isinstance(part, torch.nn.Module)}
        weights = [p for part in parts.values() for p in part.parameters()]
        held = sum(p.numel() * p.element_size() for p in weights)
        needed, free = memory_needed(denoiser, TrainingSection(batch_size=1)), free_memory(denoiser.device)
        fits = "fits" if needed < free else "does not fit"
        dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in weights})
        return {
            "Family": f"{denoiser.family} ({type(denoiser.pipeline).__name__})",
            "Trainable weights": f"{sum(p.numel() for p in denoiser.module.parameters()) / 1e6:.1f} million",
            "Trained to predict": type(denoiser.objective).__name__.lower(),
            "Precision": ", ".join(dtypes),
            "Device": str(denoiser.device),
            "Memory": f"{size(held)} loaded, {size(free)} free",
            "Unlearning all weights": f"needs at least {size(needed)}, which {fits}",
        }

    def estimate(self, recipe: Recipe, prompts: PromptSet) -> Estimate:
        """Estimate the time and memory of a run."""
        with self._lock:
            return estimate(self.denoiser(recipe.model, recipe.device), recipe, prompts)


def seed_of(value: object) -> int:
    """Check a visitor's seed.

    Raises:
        UserError: it is not a whole number from 0 to 2**31 - 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or not 0 <= value < 2**31:
        raise UserError(f"expected a seed, a whole number from 0 to {2**31 - 1}, got {value!r}.")
    return int(value)
