"""The named endpoints, for `gradio_client`. All other handlers of the page are private."""

import json
from typing import Any

import gradio as gr
import numpy as np

from ..pipeline.run.prompts import prompts_of
from ..pipeline.schema.defaults import build_part
from ..pipeline.schema.resolve import resolve
from ..pipeline.support.errors import UserError
from .access import short_text
from .controls import starting_recipe
from .page import DEVICE, Page, told
from .studio import seed_of


def build(page: Page) -> None:
    """Add the endpoints to the app."""
    for endpoint in endpoints(page):
        slow = {"concurrency_id": DEVICE, "concurrency_limit": 1} if endpoint.__name__ == "generate" else {}
        gr.api(told(endpoint, html=False), api_name=endpoint.__name__, **slow)


def endpoints(page: Page) -> list[Any]:
    """The endpoints as functions: their signatures are the schema, their docstrings the description."""
    access, runner = page.access, page.runner

    def models() -> list[str]:
        """List the models that can be chosen."""
        return access.model_names()

    def recipe(chosen: dict) -> dict:
        """Complete a recipe (nested names and values) with the defaults of its model and method."""
        return access.recipe(chosen).model_dump(mode="json")

    def defaults(model: str, method: str, preset: str) -> dict:
        """Return the recipe that the page offers for a model, a method and a preset."""
        start = {"concept": "astronaut", "model": access.model(model), "method": {"name": method}}
        return starting_recipe(start, preset).model_dump(mode="json")

    def prompts(chosen: dict) -> list[list[str]]:
        """Make a recipe's prompt pairs: rows of split, forget, retain, and what is drawn instead where that differs."""
        made = prompts_of(resolve(access.recipe(chosen)))
        parts = (("train", made.train), ("test", made.test))
        return [[split, *pair.model_dump().values()] for split, pairs in parts for pair in pairs]

    def unlearn(chosen: dict) -> str:
        """Queue an unlearning run and return its name."""
        return runner.submit(access.recipe(chosen))

    def audit(chosen: dict) -> str:
        """Queue the audit of a model as it is and return the name of the run."""
        return runner.submit(access.recipe(chosen), "audit")

    def runs() -> list[str]:
        """List every run, the newest first."""
        return runner.names()

    def status(run: str) -> dict:
        """Return a run's state, its place in the queue, its stage and its last step."""
        job, events, queue = runner.job(run), runner.events(run), runner.queue()
        return {
            "state": job.state,
            "message": job.message,
            "warnings": list(job.warnings),
            "queue": queue.index(run) if run in queue else None,
            "progress": runner.progress(run),
            "steps": len(events),
            "last_step": events[-1].model_dump() if events else None,
        }

    def results(run: str) -> dict:
        """Return the `results.json` of a run that is done, or the figures of an audit."""
        found = access.run(run).results()
        if found is not None:
            return found.model_dump(mode="json", exclude_none=True)
        audited = access.run(run).path / "audit.json"
        if not audited.exists():
            raise UserError(f"{run!r} has no results yet; it is {runner.job(run).state}.")
        return json.loads(audited.read_text(encoding="utf-8"))

    def pause(run: str) -> str:
        """Stop a run after its current step, to resume it later; return its state."""
        runner.pause(run)
        return runner.job(run).state

    def resume(run: str) -> str:
        """Put a stopped run back into the queue and return its state."""
        runner.resume(run)
        return runner.job(run).state

    def cancel(run: str) -> str:
        """Stop a run and return its state."""
        runner.cancel(run)
        return runner.job(run).state

    def delete(run: str) -> str:
        """Delete a run that is not at work and return its name."""
        runner.delete(run)
        return run

    def generate(model: str, prompt: str, seed: int) -> list[list[list[int]]]:
        """Draw one picture with a model (or `run:NAME`) and return its RGB pixels, row by row."""
        part = build_part({"model": access.model(model)}, "model", "device", "samples")
        picture = page.studio.draw(part.model, part.device, short_text(prompt, "prompt"), seed_of(seed), part.samples)
        return np.asarray(picture).tolist()

    return [
        models,
        defaults,
        recipe,
        prompts,
        unlearn,
        audit,
        runs,
        status,
        results,
        pause,
        resume,
        cancel,
        delete,
        generate,
    ]
