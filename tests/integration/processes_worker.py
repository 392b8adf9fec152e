"""Two processes that train the cases of `test_processes.py`: `python processes_worker.py FOLDER`."""

import json
import multiprocessing
import os
import socket
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.data.samples import SampleSet, draw_latents
from turpentine.pipeline.methods import build_method, find
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.schema.recipe import SampleSection, TrainingSection
from turpentine.pipeline.support.processes import ALONE, Processes, launched
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.training.parallel import check_processes, sharded
from turpentine.pipeline.training.trainer import Trainer
from turpentine.tests.support.stopping import StopWhen

PROMPTS = [f"a cat {index}" for index in range(7)]
SPEC = SampleSection(num_inference_steps=2, sample_batch_size=2)


def run_case(case, place, processes=ALONE, progress=None):
    """Gives the first step's direction and the weights at the end, whole in every process."""
    denoiser = wrap_pipeline(DiffusionPipeline.from_pretrained(place / "base-model"))
    spec = TrainingSection(**{"steps": 4, "batch_size": 4, "learning_rate": 1e-3, **case.get("training", {})})
    method = build_method(find(case["method"]).config(**case.get("options", {})))
    folder = place / case["folder"] if "folder" in case else None
    if folder:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    samples = SampleSet.load(place / "samples.safetensors")
    if case.get("double"):
        samples = in_double(denoiser, samples)
    check_processes(method.config, spec, processes)
    with sharded(denoiser, processes):
        trainer = Trainer(denoiser, method, samples, spec, 0, folder, progress, processes=processes)
        directions = {}
        combine = trainer._combine

        def recorded(grads):
            direction = combine(grads)
            if not directions:
                directions.update(
                    {name: trainer.parallel.whole(name, direction[i]).clone() for i, name in enumerate(trainer.named)}
                )
            return direction

        trainer._combine = recorded
        trainer.train(resume=case.get("resume", False))
    events = [[e.loss_forget, e.loss_retain, e.cosine, e.change_forget, e.change_retain] for e in trainer.events]
    return directions, {k: v.clone() for k, v in denoiser.module.state_dict().items()}, events


def in_double(denoiser, samples):
    """Let the network compute in float64, where the order of sums is no excuse."""
    predict = denoiser.predict
    denoiser.module.double()
    denoiser.predict = lambda noisy, timesteps, conditioning: predict(noisy.double(), timesteps, conditioning)
    wider = {}
    for term in ("forget", "retain"):
        own = getattr(samples, term)
        conditioning = {name: value.double() for name, value in own.conditioning.items()}
        wider[term] = replace(own, latents=own.latents.double(), conditioning=conditioning)
    return SampleSet.in_order(**wider)


def work(place):
    together = launched("cpu")
    for name, case in json.loads((place / "cases.json").read_text()).items():
        processes = Processes(together.rank, together.size, case["strategy"], together.device)
        progress = (
            StopWhen(lambda stage, told: stage == "unlearning" and sum(told) == 2)
            if case.get("stop") and not processes.main
            else None
        )  # one alone is told
        try:
            directions, weights, events = run_case(case, place, processes, progress)
        except Exception:
            (place / f"{name}-{processes.rank}.txt").write_text(traceback.format_exc())
            continue
        tensors = {f"direction.{k}": v for k, v in directions.items()} | {f"weight.{k}": v for k, v in weights.items()}
        save_file(tensors, place / f"{name}-{processes.rank}.safetensors")
        (place / f"{name}-{processes.rank}.json").write_text(json.dumps(events))
    denoiser = wrap_pipeline(DiffusionPipeline.from_pretrained(place / "base-model"))
    drawn = draw_latents(denoiser, PROMPTS, SPEC.sampling(), 3, Silent(), "drawing", together)
    torch.save(drawn, place / f"drawn-{together.rank}.pt")
    code = main(["unlearn", "--recipe", str(place / "recipe.yaml"), "--out", str(place / "RUN")])
    (place / f"code-{together.rank}").write_text(str(code))


def start(rank, place):
    """What a launcher does, but that the packages are imported once for both."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    with open(place / f"shown-{rank}.txt", "w", buffering=1) as shown:
        os.dup2(shown.fileno(), 1)
        os.dup2(shown.fileno(), 2)
    work(place)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=start, args=(rank, Path(sys.argv[1])), daemon=True) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    sys.exit(max(abs(process.exitcode) for process in both))
