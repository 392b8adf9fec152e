"""The registry of weights formats."""

from typing import get_args

from turpentine.pipeline.schema import choices
from turpentine.pipeline.schema.recipe import OutputSection
from turpentine.pipeline.weights import FORMATS, needs_base
from turpentine.pipeline.weights.format import Format


def test_every_format_is_a_file_and_a_line():
    assert list(FORMATS) == list(choices.WEIGHT_FORMATS)
    assert all(isinstance(each, Format) for each in FORMATS.values())
    assert len({each.rank for each in FORMATS.values()}) == len(FORMATS)
    assert [name for name, each in FORMATS.items() if each.of_difference] == ["lora", "lora_diffusers", "delta"]
    field = OutputSection.model_fields["formats"]
    assert get_args(get_args(field.annotation)[0]) == tuple(FORMATS)
    assert all(f"{name}, {meaning}" in field.description for name, meaning in choices.WEIGHT_FORMATS.items())


def test_needs_base():
    assert needs_base(["diffusers", "delta"]) and not needs_base(["diffusers", "denoiser", "single_file"])
