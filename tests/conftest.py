"""Fixtures that many tests share."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import pytest
import torch
from diffusers import StableDiffusionPipeline

from .support.tiny_models import build_tiny_pipeline


@pytest.fixture
def tiny_pipeline() -> StableDiffusionPipeline:
    """See `build_tiny_pipeline`."""
    return build_tiny_pipeline()


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other, badly on a busy machine
