"""Every stage of a run has its number format and its place, and takes only so much at once."""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import pytest
import torch
import turpentine
from safetensors.torch import load_file
from turpentine.benchmarks.memory import peak_bytes
from turpentine.pipeline.data.samples import SampleSet, in_float32
from turpentine.pipeline.models import Sampling, borrowed, frozen, load_denoiser, stages, wrap_pipeline
from turpentine.pipeline.models.placing import recast, staged
from turpentine.pipeline.models.stages import Stages, choose_stages
from turpentine.pipeline.run import stages as run_stages
from turpentine.pipeline.run.export import export_run
from turpentine.pipeline.run.prompts import prompts_of
from turpentine.pipeline.run.record import model_sha256
from turpentine.pipeline.run.stages import stages_of
from turpentine.pipeline.run.unlearning import run_recipe
from turpentine.pipeline.schema.defaults import build_recipe, read_yaml, stored_recipe
from turpentine.pipeline.schema.recipe import OutputSection, SampleSection, TrainingSection
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import Cancelled, UserError
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.training.base import frozen_base
from turpentine.pipeline.weights import base_hashes
from turpentine.pipeline.weights.apply import apply
from turpentine.pipeline.weights.undo import undo

from ..support.stopping import StopWhen
from ..support.tiny_models import BUILDERS, build_family, build_tiny_pipeline

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


# drawing -------------------------------------------------------------------------------------------

FIELDS = {
    "steps": 2, "image_size": 16, "prompts": {"n": 2, "n_test": 1}, "num_inference_steps": 2, "batch_size": 2,
    "audits": {"images": 1, "retain_train_images": 1, "alignment": False, "nudity": "off"}, "learning_rate": 1e-2,
}  # fmt: skip
SAMPLING = Sampling(2, 7.5, image_size=16)


def unlearned(pipe, out, **more):
    return turpentine.unlearn(pipe, "cat", out=out, **{**FIELDS, **more})


def written(out):
    return {path.name: load_file(path) for path in sorted((out / "weights").glob("*.safetensors"))}


def weights(part):
    return {name: value.clone() for name, value in part.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def dtypes(part):
    return {value.dtype for value in part.state_dict().values() if value.is_floating_point()}


def seen_while(module):
    """The formats of a network's first weight, whenever it computes."""
    seen = []
    module.register_forward_pre_hook(lambda *_: seen.append(next(module.parameters()).dtype))
    return seen


def places(module):
    return [each.data_ptr() for each in (*module.parameters(), *module.buffers())]


@pytest.mark.parametrize("name", BUILDERS)
def test_in_float32_on_a_cpu_nothing_is_cast_copied_or_moved(name, monkeypatch):
    pipe = build_family(name)
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    before = [(places(part), weights(part)) for part in parts]
    inside = []
    with borrowed(pipe, stages=choose_stages) as denoiser, staged(denoiser, Stages(CPU)), denoiser.drawing():
        inside += [places(part) for part in parts]
        latents = denoiser.sample(["a cat"], [0], SAMPLING, Silent(), "drawing")
        by_hand = pipe(
            prompt=["a cat"], generator=[torch.Generator().manual_seed(0)], num_inference_steps=2, height=16, width=16,
            guidance_scale=7.5, output_type="latent", **denoiser.call_options,
        ).images  # fmt: skip
        assert torch.equal(latents, denoiser.unpack(by_hand, 16))
    assert inside == [where for where, _ in before]
    assert all(same(kept, weights(part)) for (_, kept), part in zip(before, parts, strict=True))


def test_auto_is_float32_on_a_cpu_and_what_the_card_has_elsewhere(monkeypatch):
    assert choose_stages(CPU, "auto") == Stages(CPU)
    cuda = torch.device("cuda")
    for has, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(stages, "computes", lambda _, dtype, has=has: dtype != torch.bfloat16 or has)
        assert choose_stages(cuda, "auto").drawing == expected
    with pytest.raises(UserError, match=r"cuda can't draw in bf16. Set samples.sample_precision to 'auto'"):
        choose_stages(cuda, "bf16")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", BUILDERS)
def test_every_family_draws_and_embeds_in_half_precision_and_is_given_back_bit_for_bit(name, precision):
    pipe, half = build_family(name), stages.FORMATS[precision]
    denoiser = wrap_pipeline(pipe)
    before = {name: weights(part) for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    exact = denoiser.sample(["a cat"], [0], SAMPLING, Silent(), "drawing")
    seen = seen_while(denoiser.module)
    with staged(denoiser, choose_stages(CPU, precision)):
        assert dtypes(denoiser.module) == {torch.float32} and dtypes(pipe.vae) == {torch.float32}
        embedded = denoiser.encode_prompts(["a cat"])
        latents = denoiser.sample(["a cat"], [0], SAMPLING, Silent(), "drawing")
        assert {rows.dtype for rows in embedded.values()} == {half} and {*seen} == {half}
        assert dtypes(denoiser.module) == {torch.float32}, "cast while it draws only"
    assert latents.dtype == torch.float32 and 0 < (latents - exact).abs().max() < 0.3 * exact.abs().max()
    for part, kept in before.items():
        assert same(kept, weights(getattr(pipe, part)))


def test_a_run_draws_in_half_precision_trains_in_float32_and_keeps_half_the_embeddings(tmp_path):
    pipe = build_family("sdxl")
    kept = weights(pipe.text_encoder)
    seen = seen_while(pipe.unet)
    result = unlearned(pipe, tmp_path, sample_precision="bf16", steps=2)
    assert {*seen} == {torch.bfloat16, torch.float32}
    assert {tensor.dtype for file in written(tmp_path).values() for tensor in file.values()} == {torch.float32}
    assert same(kept, weights(pipe.text_encoder)) and result.pipeline is pipe
    denoiser = wrap_pipeline(pipe)
    with staged(denoiser, choose_stages(CPU, "bf16")):
        prompts = prompts_of(resolve(build_recipe({"concept": "cat", "prompts": {"n": 2, "n_test": 1}})))
        made = SampleSet.draw(denoiser, prompts, SampleSection(num_inference_steps=1, image_size=16))
    assert {rows.dtype for rows in made.forget.conditioning.values()} == {torch.bfloat16}
    made.save(tmp_path / "samples.safetensors")
    again = SampleSet.load(tmp_path / "samples.safetensors")
    assert same(made.forget.conditioning, again.forget.conditioning)
    _, given = again.forget.take(torch.tensor([0]), CPU)
    assert {rows.dtype for rows in given.values()} == {torch.float32}, "what trains is in float32"


def test_half_precision_that_overflows_is_told_with_the_way_out(tmp_path):
    pipe = build_family("sd1")
    with torch.no_grad():
        pipe.unet.conv_out.weight.fill_(3e4)
    wrap_pipeline(pipe).sample(["a cat"], [0], SAMPLING, Silent(), "drawing")
    with pytest.raises(UserError, match=r"got NaN .* sample_precision"):
        unlearned(pipe, tmp_path, sample_precision="fp16")
    assert dtypes(pipe.unet) == {torch.float32}


def test_t5_keeps_in_float32_what_its_class_keeps():
    denoiser = wrap_pipeline(build_family("flux-dev"))
    encoder = denoiser.pipeline.text_encoder_2
    with staged(denoiser, choose_stages(CPU, "fp16")):
        wide = {name for name, each in encoder.named_parameters() if each.dtype == torch.float32}
        assert wide and all("wo" in name.split(".") for name in wide)
    with staged(denoiser, choose_stages(CPU, "bf16")):
        assert dtypes(encoder) == {torch.bfloat16}


def test_prompts_are_embedded_a_few_at_a_time_where_an_encoder_is_large(monkeypatch):
    denoiser, sizes = wrap_pipeline(build_family("sd1")), []
    encode = denoiser.encode
    monkeypatch.setattr(denoiser, "encode", lambda prompts: (sizes.append(len(prompts)), encode(prompts))[1])
    denoiser.encode_prompts(["a cat"] * 70)
    monkeypatch.setattr(stages, "_LARGE", 1)
    denoiser.encode_prompts(["a cat"] * 20)
    assert sizes == [64, 6, 8, 8, 4]


def test_a_folder_is_loaded_in_the_formats_of_its_stages(tmp_path):
    build_family("flux-dev").to(torch.bfloat16).save_pretrained(tmp_path)
    half = load_denoiser(str(tmp_path), "cpu", None, choose_stages(CPU, "bf16", "bf16"))
    found = {name: dtypes(getattr(half.pipeline, name)) for name in ("transformer", "text_encoder_2", "vae")}
    assert found == {
        "transformer": {torch.bfloat16}, "text_encoder_2": {torch.bfloat16}, "vae": {torch.float32},
    }  # fmt: skip
    assert not half.warnings
    half.release()
    half.restore()
    assert dtypes(half.pipeline.text_encoder_2) == {torch.bfloat16} and dtypes(half.pipeline.vae) == {torch.float32}
    whole = load_denoiser(str(tmp_path), "cpu")
    assert all(dtypes(getattr(whole.pipeline, name)) == {torch.float32} for name in found)
    assert base_hashes(half.module.state_dict()) == base_hashes(whole.module.state_dict())
    assert model_sha256(whole) | {"text_encoder": 0} == model_sha256(half) | {"text_encoder": 0}


# a frozen base in few bits -------------------------------------------------------------------------

LORA = {"parameters": "lora", "precision": "bf16", "sample_precision": "bf16", "adapter_rank": 2}
TRAINED = {"parameters": "lora", "precision": "bf16"}
QUANTISED = [
    pytest.param("int8", marks=pytest.mark.skipif(not find_spec("torchao"), reason="needs torchao")),
    pytest.param("fp8", marks=pytest.mark.skipif(not find_spec("torchao"), reason="needs torchao")),
    "nf4",
]


def storage_bytes(tensor):
    """What a tensor holds: of a quantised one, its numbers and their scales."""
    names = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
    parts = [part for name in names if isinstance(part := getattr(tensor, name), torch.Tensor)] or [tensor]
    return sum(part.numel() * part.element_size() for part in parts)


@pytest.mark.parametrize("base", ["bf16", *QUANTISED])
@pytest.mark.parametrize("name", ["sd1", "flux-dev"])
def test_a_lora_trains_beside_frozen_weights_and_goes_into_those_that_came(name, base, tmp_path):
    pipe = build_family(name)
    network = getattr(pipe, "unet", None) or pipe.transformer
    came = weights(network)
    formats = ["lora_diffusers", "denoiser", "delta"]
    result = unlearned(pipe, tmp_path, **LORA, base_precision=base, formats=formats)
    assert (getattr(pipe, "unet", None) or pipe.transformer) is network and dtypes(network) == {torch.float32}
    files = {key: next(value for name, value in written(tmp_path).items() if key in name) for key in ("lora", "delta")}
    denoiser = next(value for name, value in written(tmp_path).items() if "lora" not in name and "delta" not in name)
    assert {tensor.dtype for tensor in files["lora"].values()} == {torch.float32}
    changed = {key for key in came if not torch.equal(came[key], denoiser[key])}
    layers = {key.partition(".")[2].rpartition(".lora_")[0] for key in files["lora"]}
    assert changed == {f"{layer}.weight" for layer in layers}, "only what has a LoRA, and nothing is rounded"
    component = "unet" if name == "sd1" else "transformer"
    for layer in layers:
        up, down = (files["lora"][f"{component}.{layer}.lora_{part}.weight"] for part in "BA")
        torch.testing.assert_close(denoiser[f"{layer}.weight"], came[f"{layer}.weight"] + up @ down)
    assert same(denoiser, weights(network))
    assert result.results.model.sha256 == base_hashes(came).sha256
    undo(pipe, next((tmp_path / "weights").glob("*-delta.safetensors")))
    assert same(came, weights(network)), "taken back bit for bit"


@pytest.mark.parametrize("base", ["bf16", *QUANTISED])
def test_frozen_weights_take_the_bytes_of_their_format(base):
    denoiser = wrap_pipeline(build_tiny_pipeline())
    network = denoiser.module
    with staged(denoiser, choose_stages(CPU, "auto", base)), frozen_base(denoiser, TrainingSection(**TRAINED)):
        assert denoiser.module is not network
        inside, linear = denoiser.module, {n for n, each in network.named_modules() if type(each) is torch.nn.Linear}
        held = {name: storage_bytes(inside.get_submodule(name).weight) for name in linear}
        rest = {p.dtype for n, p in inside.named_parameters() if n.rpartition(".")[0] not in linear}
    assert denoiser.module is network and rest == {torch.bfloat16}
    most = {"bf16": 1, "int8": 0.5, "fp8": 0.5, "nf4": 0.25}[base]
    for name, taken in held.items():
        weight = network.get_submodule(name).weight
        assert taken <= most * 2 * weight.numel() + 8 * len(weight), "its numbers, and at most two scales a row"


@pytest.mark.parametrize("parameters", ["lora", "xattn"])
def test_a_half_precision_pipeline_is_unlearned_without_a_float32_copy_of_its_frozen_weights(parameters, tmp_path):
    pipe = build_family("sd1").to(torch.bfloat16)
    came = weights(pipe.unet)
    seen = []
    pipe.unet.conv_in.register_forward_pre_hook(lambda module, _: seen.append(module.weight.dtype))
    options = LORA if parameters == "lora" else {"parameters": "xattn", "precision": "bf16", "sample_precision": "bf16"}
    unlearned(pipe, tmp_path, **options, base_precision="bf16", formats=["denoiser"])
    (denoiser,) = written(tmp_path).values()
    assert {*seen} == {torch.bfloat16} and dtypes(pipe.unet) == {torch.bfloat16}
    moved = {key for key in came if not torch.equal(came[key].float(), denoiser[key])}
    assert moved and all("attn" in key for key in moved)
    assert {tensor.dtype for tensor in denoiser.values()} == {torch.float32}
    assert any((denoiser[key] != denoiser[key].bfloat16().float()).any() for key in moved), "more than bf16 could hold"
    assert same({key: value.bfloat16() for key, value in denoiser.items()}, weights(pipe.unet))


@pytest.mark.parametrize("base", ["bf16", "nf4"])
def test_a_stopped_run_beside_frozen_weights_ends_as_an_uninterrupted_one(base, tmp_path):
    options = {**LORA, "base_precision": base, "formats": ["denoiser", "lora"], "steps": 4, "checkpoint_every": 1}
    unlearned(build_family("sd1"), tmp_path / "whole", **options)
    stop = StopWhen(lambda stage, told: stage == "unlearning" and len(told) > 2)
    pipe = build_family("sd1")
    came = weights(pipe.unet)
    with pytest.raises(Cancelled):
        unlearned(pipe, tmp_path / "stopped", progress=stop, **options)
    pipe.unet.load_state_dict(came)
    recipe = stored_recipe(read_yaml(tmp_path / "stopped" / "recipe.yaml"))
    with borrowed(pipe, stages=partial(stages_of, recipe)) as denoiser:
        run_recipe(recipe, tmp_path / "stopped", denoiser=denoiser, resume=True)
    whole, stopped = written(tmp_path / "whole"), written(tmp_path / "stopped")
    assert whole.keys() == stopped.keys() and all(same(whole[name], stopped[name]) for name in whole)
    base = build_family("sd1")
    base.save_pretrained(tmp_path / "base")
    (delta,) = export_run(tmp_path / "whole", OutputSection(formats=["delta"]), str(tmp_path / "base"))
    apply(base, tmp_path / "whole" / delta.path)
    assert same(weights(base.unet), next(file for name, file in whole.items() if "lora" not in name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": "full"}, "needs training.parameters 'lora' or 'xattn' or 'noxattn', got 'full'"),
        (
            {"base_precision": "nf4", "parameters": "xattn"},
            "'nf4' needs training.parameters 'lora', got",
        ),
        ({"precision": "fp32"}, "base_precision 'bf16' needs training.precision 'bf16', got 'fp32'"),
        ({"base_precision": "nf4", "sample_precision": "fp32"}, "'nf4' draws in bf16, got samples.sample_precision"),
        ({"base_precision": "int8", "offload": "sequential"}, "goes with samples.offload 'none' or 'model'"),
    ],
)
def test_bases_that_cannot_be_held_so_are_refused_before_anything_is_drawn(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        unlearned(build_family("sd1"), tmp_path / "run", **{**LORA, "base_precision": "bf16", **options})
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_missing_or_has_no_kernels_is_told_before_anything_is_drawn(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(frozen, "_quantised", broken)
    with pytest.raises(UserError, match=r"bitsandbytes can't hold weights in nf4 on cpu .no kernel image"):
        unlearned(build_family("sd1"), tmp_path / "run", **LORA, base_precision="nf4")
    monkeypatch.setattr(frozen, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r'needs the package \'torchao\'.*"turpentine\[quantised\]"'):
        unlearned(build_family("sd1"), tmp_path / "run", **LORA, base_precision="int8")
    assert not (tmp_path / "run").exists()


# what leaves the device ----------------------------------------------------------------------------


def hooked(pipe):
    """Networks with hooks of accelerate or of diffusers."""
    found = set()
    for name, part in pipe.components.items():
        for module in part.modules() if isinstance(part, torch.nn.Module) else ():
            registry = getattr(module, "_diffusers_hook", None)
            if hasattr(module, "_hf_hook") or (registry is not None and registry.hooks):
                found.add(name)
    return found


@pytest.mark.parametrize("offload", ["model", "group", "sequential"])
@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3", "flux-dev"])
def test_offloaded_parts_draw_embed_encode_and_decode_the_same_and_are_whole_afterwards(name, offload):
    """The device is a CPU as well: hooks come and go, and nothing else tells the difference."""
    pipe = build_family(name)
    denoiser = wrap_pipeline(pipe)
    before = {name: weights(part) for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}

    def everything():
        with denoiser.drawing():
            latents = [denoiser.sample(["a cat"], [seed], SAMPLING, Silent(), "drawing") for seed in (0, 1)]
        pictures = denoiser.decode(torch.cat(latents))
        encoded = denoiser.encode_images(pictures.permute(0, 3, 1, 2) / 255)
        return [*latents, pictures, encoded, *denoiser.encode_prompts(["a cat", "a dog"]).values()]

    plain = everything()
    for precision in ("fp32", "bf16"):
        wanted = replace(choose_stages(CPU, precision), offload=offload)
        with staged(denoiser, wanted):
            with denoiser.drawing():
                assert hooked(pipe) == {*before}
            assert not hooked(pipe)
            offloaded = everything()
            if precision == "fp32":
                assert [(a - b).abs().max().item() for a, b in zip(plain, offloaded, strict=True)] == [0] * len(plain)
            denoiser.predict(torch.randn(1, 4, 8, 8), torch.tensor([500]), in_float32(denoiser.encode_prompts([""])))
        assert not hooked(pipe)
        assert all(same(kept, weights(getattr(pipe, part))) for part, kept in before.items())


@pytest.mark.parametrize("offload", ["model", "group", "sequential"])
@pytest.mark.parametrize(
    "options",
    [{}, {"sample_precision": "bf16"}, {**LORA, "base_precision": "bf16"}],
    ids=["whole", "drawn in bf16", "frozen base"],
)
def test_a_run_with_offloading_ends_as_one_without(offload, options, tmp_path, monkeypatch):
    fields = {**options, "preview_every": 1, "formats": ["denoiser"]}
    unlearned(build_family("sd1"), tmp_path / "plain", **fields)
    monkeypatch.setattr(run_stages, "choose_stages", lambda *args: replace(choose_stages(*args), offload=args[3]))
    pipe = build_family("sd1")
    unlearned(pipe, tmp_path / "offloaded", **fields, offload=offload)
    plain, offloaded = written(tmp_path / "plain"), written(tmp_path / "offloaded")
    assert all(same(plain[name], offloaded[name]) for name in plain) and not hooked(pipe)
    assert pipe("a cat", num_inference_steps=1, height=16, width=16, output_type="latent").images.isfinite().all()


def test_nothing_leaves_a_cpu_and_that_is_told(tmp_path):
    assert choose_stages(CPU, "fp32", "fp32", "model") == Stages(CPU)
    assert Stages(torch.device("cuda"), offload="model").rest == CPU
    result = unlearned(build_family("sd1"), tmp_path, offload="model", device="cpu")
    assert any("samples.offload (--offload) has no effect" in told for told in result.results.warnings)


def test_tables_that_are_in_no_file_are_never_rounded():
    module = torch.nn.Linear(2, 2)
    module.register_buffer("rotary", torch.tensor([1 / 3]), persistent=False)
    module.register_buffer("places", torch.tensor([1 / 3]))
    with ExitStack() as undo:
        assert recast(module, torch.bfloat16, undo) and not recast(module, torch.bfloat16, undo)
        assert (module.rotary.dtype, module.places.dtype) == (torch.float32, torch.bfloat16)
    assert module.places.item() == torch.tensor(1 / 3).item() and module.weight.dtype == torch.float32
