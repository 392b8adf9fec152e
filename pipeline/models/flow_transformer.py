"""What the transformers that are trained by flow matching share."""

import math
from typing import Any

from diffusers import DPMSolverMultistepScheduler

from ..objectives import Objective, flow_matching_from_scheduler
from .base import PipelineDenoiser


class FlowTransformer(PipelineDenoiser):
    """`PipelineDenoiser` whose network is a transformer on patches."""

    component = "transformer"
    patch_size = 2

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
        """DPM-Solver++ on the flow's sigmas."""
        if not config.get("use_dynamic_shifting"):  # Flux's pipeline always gives a mu: let it be the fixed shift
            mu = math.log(config["shift"])
            config = {**config, "use_dynamic_shifting": True, "base_shift": mu, "max_shift": mu}
        return DPMSolverMultistepScheduler.from_config(config, prediction_type="flow_prediction", use_flow_sigmas=True)
