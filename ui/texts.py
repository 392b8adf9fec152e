"""The words of the page: what each step is for, and why."""

WHY = {
    "model": "Unlearning starts from a model that can draw the concept. Try a prompt: what it can't draw, it need "
    "not forget. **tiny-canvas** comes with Turpentine, draws 64x64 pictures of a small world, and runs "
    "on any computer.",
    "prompts": "Each row is a pair: one prompt with the concept, and the same without it. The model is trained away "
    "from the first and held to the second, so what the pairs share is kept. Diverse rows keep more of "
    "the model intact than many copies of one (Ko et al. 2024). Test rows are never trained on; the "
    "audits use them.",
    "unlearn": "Forgetting and keeping pull the weights in two directions. Where they conflict, RGD takes from each "
    "the part that hurts the other. A step further forgets more; the presets choose how many. You may "
    "close the browser: the work goes on, and this page finds it again.",
    "audit": "The same prompts and seeds are drawn before and after. Low figures on the forget rows mean that the "
    "concept is gone, unchanged figures on the retain rows that the rest is still there. Unlearning is "
    "not a proof of absence: prompts that nobody audited can still bring a concept back.",
    "export": "Weights are safetensors files, never pickles; their header tells the concept, the method, the whole "
    "recipe and the figures of the audits. The command below repeats the run without this page.",
    "runs": "Every run keeps its recipe, prompts, curves, pictures and figures in a folder of its own. Nothing is "
    "lost until you delete it here.",
}

STATES = {
    "queued": "waits for its turn",
    "running": "at work",
    "stopping": "stopping after this step",
    "paused": "paused",
    "cancelled": "cancelled",
    "failed": "failed",
    "done": "done",
}
