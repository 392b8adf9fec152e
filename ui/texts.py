"""Texts of the page: the reasons for each step, and the states of a run."""

WHY = {
    "model": "Unlearning starts from a model that can draw the concept. Try a prompt first: if the model can't draw "
    "the concept, there is nothing to remove. **tiny-canvas** comes with Turpentine. It draws 64x64 pictures of a "
    "small world and runs on any computer.",
    "prompts": "Each row is a pair: a prompt with the concept, and the same prompt without it. Training takes "
    "the concept from the first and holds the model to the second, so it keeps everything that the two share. "
    "Diverse rows keep more of the model intact than many copies of one row (Ko et al. 2024). *Draw instead* says "
    "what forget prompts shall show from now on, to methods that can be told: *auto* is one thing that fits the "
    "concept, the same for all rows; left empty, it is what the retain prompts show. Test rows are never trained on; "
    "only the audits use them.",
    "unlearn": "Forgetting and keeping pull the weights in two directions. Where the two conflict, RGD removes from "
    "each gradient the part that would undo the other. More steps forget more; a preset sets their number. You may "
    "close the browser: the run continues, and this page finds it again.",
    "audit": "The models before and after draw the same prompts with the same seeds. Low figures on the forget rows "
    "mean that the concept is gone. Unchanged figures on the retain rows mean that the rest is still there. An audit "
    "proves nothing about other prompts: some may still bring the concept back.",
    "export": "Weights are safetensors files, never pickles. Their header records the concept, the method, the whole "
    "recipe and the audit figures. The command below repeats the run without this page.",
    "runs": "Each run keeps its recipe, prompts, curves, pictures and figures in its own folder until you delete it "
    "here.",
}

STATES = {
    "queued": "waiting for its turn",
    "running": "running",
    "stopping": "stopping after this step",
    "paused": "paused",
    "cancelled": "cancelled",
    "failed": "failed",
    "done": "done",
}
