"""Every stage of a run has its number format and its place, and takes only so much at once."""

import pytest
import torch
from turpentine.benchmarks.memory import peak_bytes
from turpentine.pipeline.models import stages, wrap_pipeline

from ..support.tiny_models import build_family

CPU = torch.device("cpu")

# pictures and latents ------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "at_once"), [(64, 16), (256, 16), (512, 4), (768, 1), (1024, 1), (2048, 1)])
def test_pictures_are_decoded_so_many_at_once(side, at_once):
    assert stages.pictures_at_once(side * side, stages.DECODED) == at_once


def test_decoding_takes_no_more_memory_for_many_pictures_than_for_those_at_once(monkeypatch):
    denoiser = wrap_pipeline(build_family("sd1"))
    monkeypatch.setattr(stages, "LARGEST", 16 * 16)
    latents = torch.randn(8, 4, 8, 8)
    one = peak_bytes(lambda: denoiser.decode(latents[:1]), CPU)
    eight = peak_bytes(lambda: denoiser.decode(latents), CPU)
    pictures = 8 * 3 * 16 * 16
    assert eight < one + 4 * pictures, "beyond the pictures themselves, as much as for one"
    images = torch.rand(8, 3, 16, 16)
    one = peak_bytes(lambda: denoiser.encode_images(images[:1]), CPU)
    eight = peak_bytes(lambda: denoiser.encode_images(images), CPU)
    assert eight < one + 8 * 4 * 64 * 4 * 4


def test_a_large_picture_is_decoded_in_tiles_and_the_autoencoder_is_as_it_was_afterwards(monkeypatch):
    denoiser = wrap_pipeline(build_family("sd1"))
    vae, seen = denoiser.pipeline.vae, []
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda *args, **more: (seen.append(vae.use_tiling), decode(*args, **more))[1])
    denoiser.decode(torch.randn(1, 4, 8, 8))
    monkeypatch.setattr(stages, "LARGEST", 16 * 16)
    small = denoiser.decode(torch.randn(1, 4, 8, 8))
    large = denoiser.decode(torch.randn(1, 4, 16, 16))
    assert seen == [False, False, True] and not vae.use_tiling
    assert small.shape == (1, 16, 16, 3) and large.shape == (1, 32, 32, 3)
    monkeypatch.setattr(vae, "decode", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        denoiser.decode(torch.randn(1, 4, 16, 16))
    assert not vae.use_tiling
