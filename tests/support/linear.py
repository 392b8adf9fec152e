"""Denoisers, objectives and batches that can be worked out by hand, in float64."""

import torch
from torch import nn
from turpentine.pipeline.maths.objectives import Epsilon, Objective
from turpentine.pipeline.methods.base import Batch

ALPHAS = torch.tensor([0.81, 0.64, 0.36, 0.04], dtype=torch.float64)  # sqrt: 0.9, 0.8, 0.6, 0.2


class Flow(Objective):
    """x_t = (1 - s) x_0 + s eps with s = t / 3, target eps - x_0."""

    num_train_timesteps = 4

    def sample_timesteps(self, count, generator):
        return torch.rand(count, generator=generator, dtype=torch.float64) * 3

    def add_noise(self, samples, noise, timesteps):
        s = (timesteps / 3).reshape(-1, *[1] * (samples.ndim - 1))
        return (1 - s) * samples + s * noise

    def target(self, samples, noise, timesteps):
        return noise - samples


class Linear:
    """predict(x, t, c) = w x + b c, with one weight each."""

    device = torch.device("cpu")

    def __init__(self, objective=None, w=0.5, b=2.0):
        self.objective = objective or Epsilon(ALPHAS)
        self.module = nn.Module()
        self.module.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))
        self.module.b = nn.Parameter(torch.tensor(b, dtype=torch.float64))

    def predict(self, noisy_samples, timesteps, conditioning):
        return self.module.w * noisy_samples + self.module.b * conditioning["c"].reshape(-1, 1, 1, 1)


def rows(*values):
    return {"c": torch.tensor(values, dtype=torch.float64).reshape(-1, 1)}


def make_batch(forget=3.0, paired=-1.0, timestep=1, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples, noise = (torch.randn(count, 1, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    timesteps = torch.full((count,), timestep)
    return Batch(samples, rows(*[forget] * count), noise, timesteps, rows(*[paired] * count))
