"""What each stage of a run computes in, and how much at once: the one place that says so.

A run embeds prompts, draws, trains, encodes and decodes. The loader, the adapters and the trainer ask `Stages` for
the number format and the place of each, and nothing else decides them.
"""

import sys

LARGEST = 2**20
"""Pixels that an autoencoder takes at once, and above which it works in tiles: one picture of 1024 x 1024."""

DECODED = 16
"""Pictures that are decoded at once at most, however small they are."""


def pictures_at_once(pixels: int, most: int = sys.maxsize) -> int:
    """How many pictures the autoencoder takes at once, at least one.

    In float32 a decoder of the published shape takes 3 GiB for each picture of 1024 x 1024 pixels.

    Args:
        pixels: of one picture, height times width.
        most: however small they are.
    """
    return max(1, min(most, LARGEST // max(1, pixels)))
