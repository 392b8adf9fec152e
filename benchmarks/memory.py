"""Measure the memory that a piece of work takes beyond the memory in use before it."""

import os
from collections.abc import Callable

import torch

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks to stderr, and asks for this when it first starts


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Run `work` and return the peak of bytes in tensors, above the bytes in use before it.

    On CUDA it is the allocator's peak; on the CPU every allocation of PyTorch's CPU allocator is counted.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        now += change.nbytes()
        peak = max(peak, now)
    return peak
