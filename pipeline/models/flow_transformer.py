"""The common part of the transformers that are trained by flow matching."""

import math
from typing import Any

from diffusers import DPMSolverMultistepScheduler

from ..maths.objectives import Objective, flow_matching_from_scheduler
from .base import PipelineDenoiser


class FlowTransformer(PipelineDenoiser):
    """`PipelineDenoiser` whose network is a transformer on patches."""

    component = "transformer"
    patch_size = 2
    attention = (*PipelineDenoiser.attention, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")

    def build_objective(self) -> Objective:
        """Rectified flow with the scheduler's shift.

        Raises:
            ValueError: a scheduler that is not of flow matching.
        """
        scheduler = self.pipeline.scheduler
        if "shift" not in scheduler.config:
            raise ValueError(f"expected a FlowMatchEulerDiscreteScheduler, got {type(scheduler).__name__}.")
        return flow_matching_from_scheduler(scheduler.config, self.patch_size)

    def sampler(self, config: Any) -> Any:
        """DPM-Solver++ on the flow's sigmas, shifted as the pipeline's own scheduler shifts them."""
        solver = DPMSolverMultistepScheduler.from_config(
            {"num_train_timesteps": config["num_train_timesteps"]},
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            use_dynamic_shifting=True,
        )
        kept = {key: config[key] for key in ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")}
        if not config.get("use_dynamic_shifting"):
            kept |= dict.fromkeys(("base_shift", "max_shift"), math.log(config["shift"]))
        solver.register_to_config(**kept)  # the pipelines compute mu from these, and the solver's shift is e^mu
        return solver
