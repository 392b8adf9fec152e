"""A user's pipeline in every state in which one comes: respected and given back, or refused in one line."""

import pytest
import torch
import turpentine
from diffusers import StableDiffusionXLImg2ImgPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from peft import LoraConfig
from safetensors.torch import load_file
from turpentine.pipeline.models import borrowed, wrap_pipeline
from turpentine.pipeline.support.errors import Cancelled, UserError

from ..support.stopping import StopWhen
from ..support.tiny_models import BUILDERS, build_family, tiny_vae

FIELDS = {
    "steps": 1, "image_size": 16, "prompts": {"n": 2, "n_test": 1}, "num_inference_steps": 2, "batch_size": 2,
    "audits": {"images": 1, "retain_train_images": 1, "alignment": False, "nudity": "off"},
}  # fmt: skip
PROMPT = {"num_inference_steps": 2, "height": 16, "width": 16, "output_type": "latent"}


def weights(part):
    return {name: value.clone() for name, value in part.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def networks(pipe):
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def unlearned(pipe, out, **more):
    result = turpentine.unlearn(pipe, "cat", out=out, **{**FIELDS, **more})
    (file,) = (out / "weights").glob("*.safetensors")
    return result, load_file(file)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The denoiser's weights as a float32 pipeline gives them."""
    return unlearned(build_family("sd1"), tmp_path_factory.mktemp("plain"))[1]


# half precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("parts", [None, ["text_encoder"], ["unet"], ["vae"]])
def test_a_pipeline_in_another_precision_is_unlearned_in_float32_and_given_back(dtype, parts, tmp_path):
    pipe = build_family("sd1")
    came = {name: part.to(dtype) if parts is None or name in parts else part for name, part in networks(pipe).items()}
    came = {name: {key: value.dtype for key, value in part.state_dict().items()} for name, part in came.items()}
    vae = weights(pipe.vae)
    result, written = unlearned(pipe, tmp_path)
    assert {value.dtype for value in written.values()} == {torch.float32}, "nothing is rounded in the file"
    assert {n: {k: v.dtype for k, v in p.state_dict().items()} for n, p in networks(pipe).items()} == came
    assert same(vae, weights(pipe.vae)), "what does not train is bit for bit as it was"
    assert same({key: value.to(came["unet"][key]) for key, value in written.items()}, weights(pipe.unet))
    kind = str(dtype).removeprefix("torch.")
    assert [f"the pipeline came in {kind} (" in told for told in result.results.warnings if kind in told] == [True]


@pytest.mark.parametrize("name", BUILDERS)
def test_every_family_in_half_precision_draws_embeds_and_predicts(name):
    pipe = build_family(name).to(torch.bfloat16)
    with borrowed(pipe) as denoiser:
        conditioning = denoiser.encode_prompts(["a cat"])
        loss = denoiser.predict(torch.randn(1, 4, 8, 8), torch.tensor([500]), conditioning).square().mean()
        loss.backward()
    assert {p.dtype for part in networks(pipe).values() for p in part.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("stop", [Cancelled, UserError])
def test_a_pipeline_is_given_back_after_a_cancel_or_an_error(stop, tmp_path):
    pipe = build_family("sd1").to(torch.float16)
    pipe.unet = compiled = torch.compile(pipe.unet, backend="eager")
    with pytest.raises(stop):
        if stop is Cancelled:
            unlearned(pipe, tmp_path / "r", progress=StopWhen(lambda stage, told: stage == "unlearning"))
        else:
            unlearned(pipe, tmp_path / "r", no_such_option=1)
    assert pipe.unet is compiled and {p.dtype for p in pipe.vae.parameters()} == {torch.float16}


# compiled -----------------------------------------------------------------------------------------


def compiled_component(pipe):
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    pipe.vae = torch.compile(pipe.vae, backend="eager")
    pipe.text_encoder = torch.compile(pipe.text_encoder, backend="eager")


def compiled_inside(pipe):
    pipe.vae.decoder = torch.compile(pipe.vae.decoder, backend="eager")
    pipe.unet.mid_block = torch.compile(pipe.unet.mid_block, backend="eager")


def compiled_forward(pipe):
    pipe.unet.forward = torch.compile(pipe.unet.forward, backend="eager")


COMPILED = {
    "component": compiled_component,
    "inside": compiled_inside,
    "in place": lambda pipe: pipe.unet.compile(backend="eager"),
    "repeated blocks": lambda pipe: pipe.unet.compile_repeated_blocks(backend="eager"),
    "forward": compiled_forward,
}


@pytest.mark.parametrize("how", COMPILED)
def test_compiled_networks_give_the_same_weights_and_stay_compiled(how, plain, tmp_path):
    pipe = build_family("sd1")
    COMPILED[how](pipe)
    came = [(id(m), m._compiled_call_impl, {*vars(m)}) for part in networks(pipe).values() for m in part.modules()]
    _, written = unlearned(pipe, tmp_path)
    assert same(written, plain)
    assert came == [(id(m), m._compiled_call_impl, {*vars(m)}) for p in networks(pipe).values() for m in p.modules()]


# modes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["inference", "no_grad", "grad off", "autocast", "dtype", "bfloat16 default", "device", "built"]
)
def test_the_callers_modes_change_nothing_and_stay(mode, plain, tmp_path):
    if mode == "built":
        with torch.inference_mode():
            pipe = build_family("sd1")
        assert same(unlearned(pipe, tmp_path)[1], plain)
        return
    pipe = build_family("sd1")
    if mode == "inference":
        with torch.inference_mode():
            assert same(unlearned(pipe, tmp_path)[1], plain) and torch.is_inference_mode_enabled()
    elif mode == "no_grad":
        with torch.no_grad():
            assert same(unlearned(pipe, tmp_path)[1], plain) and not torch.is_grad_enabled()
    elif mode == "grad off":
        with torch.set_grad_enabled(False):
            assert same(unlearned(pipe, tmp_path)[1], plain) and not torch.is_grad_enabled()
    elif mode == "device":
        with torch.device("meta"):
            assert same(unlearned(pipe, tmp_path)[1], plain) and torch.get_default_device().type == "meta"
    elif mode == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert same(unlearned(pipe, tmp_path)[1], plain) and torch.is_autocast_enabled("cpu")
    else:
        dtype = torch.float64 if mode == "dtype" else torch.bfloat16
        torch.set_default_dtype(dtype)
        try:
            assert same(unlearned(pipe, tmp_path)[1], plain) and torch.get_default_dtype() == dtype
        finally:
            torch.set_default_dtype(torch.float32)


def test_training_mode_frozen_weights_and_left_gradients_change_nothing_and_stay(plain, tmp_path):
    pipe = build_family("sd1")
    for name, part in networks(pipe).items():
        part.train()
        part.requires_grad_(name == "vae")
    pipe.unet.mid_block.eval()
    pipe.unet.conv_in.weight.grad = torch.ones_like(pipe.unet.conv_in.weight)
    modes = [
        (m.training, [p.requires_grad for p in m.parameters()]) for p in networks(pipe).values() for m in p.modules()
    ]
    assert same(unlearned(pipe, tmp_path)[1], plain)
    assert modes == [
        (m.training, [p.requires_grad for p in m.parameters()]) for p in networks(pipe).values() for m in p.modules()
    ]


def test_the_progress_bar_stays_as_it_was(tmp_path):
    pipe = build_family("sd1")
    pipe.set_progress_bar_config(desc="mine")
    unlearned(pipe, tmp_path)
    assert pipe._progress_bar_config == {"desc": "mine"}


# adapters -----------------------------------------------------------------------------------------


def add(part, name, targets=("to_q", "to_v"), seed=1):
    torch.manual_seed(seed)
    part.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=list(targets), init_lora_weights=False), name)


def off(pipe):
    pipe.disable_lora()


def off_in_the_unet_alone(pipe):
    add(pipe.text_encoder, "style", ["q_proj"])
    pipe.unet.disable_lora()


def on_again(pipe):
    pipe.disable_lora()
    pipe.enable_lora()


def only_one_of_two(pipe):
    add(pipe.unet, "other", seed=2)
    pipe.set_adapters("other")


def one_of_two_fused(pipe):
    add(pipe.unet, "other", seed=2)
    pipe.set_adapters(["style", "other"], [1.0, 1.0])
    pipe.fuse_lora(components=["unet"], adapter_names=["style"])


def one_layer_off(pipe):
    pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.enable_adapters(False)


def fused(pipe, scale=1.0):
    pipe.fuse_lora(components=["unet"], lora_scale=scale)


STATES = {
    "on": lambda pipe: None,
    "off": off,
    "off in the unet alone": off_in_the_unet_alone,
    "off in the text encoder alone": lambda pipe: (
        add(pipe.text_encoder, "style", ["q_proj"]),
        pipe.text_encoder.disable_adapters(),
    ),
    "on again": on_again,
    "none chosen": lambda pipe: pipe.unet.set_adapters([], []),
    "one of two": only_one_of_two,
    "two": lambda pipe: (add(pipe.unet, "other", seed=2), pipe.set_adapters(["style", "other"], [0.5, 0.25])),
    "half": lambda pipe: pipe.set_adapters("style", 0.5),
    "nothing of it": lambda pipe: pipe.set_adapters("style", 0.0),
    "one layer off": one_layer_off,
    "fused": fused,
    "fused at half": lambda pipe: fused(pipe, 0.5),
    "one of two fused": one_of_two_fused,
    "fused, then off": lambda pipe: (fused(pipe), pipe.disable_lora()),
}


@pytest.mark.parametrize("state", STATES)
def test_adapters_do_afterwards_what_they_did_before(state):
    pipe = build_family("sd1")
    plain = weights(pipe.unet)
    add(pipe.unet, "style")
    STATES[state](pipe)
    noisy, ids = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([[0, 5, 7, 1]])
    with torch.no_grad():
        embeds = pipe.text_encoder(ids)[0]
        before = pipe.unet(noisy, 10, embeds).sample
        denoiser = wrap_pipeline(pipe)
        torch.testing.assert_close(pipe.text_encoder(ids)[0], embeds, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pipe.unet(noisy, 10, embeds).sample, before, atol=1e-5, rtol=1e-5)
    assert weights(pipe.unet).keys() == plain.keys(), "no trace of the adapters is left in the names"
    assert denoiser.warnings and "style" in " ".join(denoiser.warnings)
    off = state in ("off", "none chosen", "fused, then off")
    assert any("switched off (style)" in told for told in denoiser.warnings) == (off or state == "one of two")
    assert any("fused into its weights" in told for told in denoiser.warnings) == (not off)


def test_parts_of_different_dtypes_are_told():
    """transformers reads the dtype of the files, diffusers float32, so that a half-precision folder comes in both."""
    pipe = build_family("sd1")
    pipe.text_encoder.half()
    assert any("can't draw by itself" in warning for warning in wrap_pipeline(pipe).warnings)
    for dtype in (torch.float32, torch.float16):
        assert not any("by itself" in warning for warning in wrap_pipeline(build_family("sd1").to(dtype)).warnings)


def test_an_adapter_of_a_half_precision_pipeline():
    pipe = build_family("sd1")
    add(pipe.unet, "style")
    expected = weights(wrap_pipeline(pipe).module)
    pipe = build_family("sd1")
    add(pipe.unet, "style")
    rounded = weights(wrap_pipeline(pipe.to(torch.bfloat16)).module)
    for key, value in expected.items():
        torch.testing.assert_close(rounded[key], value, atol=0.02, rtol=0.02)


# what is refused ----------------------------------------------------------------------------------


def hooked(pipe):
    pipe.enable_sequential_cpu_offload(device="cpu")


def on_meta(pipe):
    pipe.vae.to("meta")


def in_groups(pipe):
    pipe.unet.enable_group_offload(torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)


def ip_adapter(pipe):
    name = next(name for name in pipe.unet.attn_processors if "attn2" in name)
    pipe.unet.set_attn_processor(
        {key: IPAdapterAttnProcessor2_0(32, 32, [4]) if key == name else value
         for key, value in pipe.unet.attn_processors.items()}
    )  # fmt: skip


def without(*names):
    def take(pipe):
        for name in names:
            setattr(pipe, name, None)

    return take


def wrapped(pipe):
    from peft import get_peft_model

    pipe.unet = get_peft_model(pipe.unet, LoraConfig(r=2, target_modules=["to_q"]))


def parallel(pipe):
    pipe.unet = torch.nn.DataParallel(pipe.unet)


def nan(pipe):
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias[0] = float("nan")


def quantised(pipe):
    from bitsandbytes.nn import Linear8bitLt

    pipe.unet.time_embedding.linear_1 = Linear8bitLt(16, 64)


def longer_tokenizer(pipe):
    pipe.tokenizer.add_tokens([f"<more-{number}>" for number in range(3)])


def endless_tokenizer(pipe):
    pipe.tokenizer.model_max_length = int(1e30)


def mapped(pipe):
    pipe.hf_device_map = {"unet": 0, "vae": "cpu"}


REFUSED = {
    "offloaded": (hooked, r"the vae is offloaded .* Call pipe\.remove_all_hooks\(\)"),
    "device map": (mapped, r"device_map\. Call pipe\.reset_device_map\(\)"),
    "meta": (on_meta, r"weights of the vae are not in memory \(device 'meta'\)"),
    "groups": (in_groups, r"the unet carries hooks of diffusers \(.*group_offload.*Load the pipeline again"),
    "ip adapter": (ip_adapter, r"IP-Adapter.* Call pipe\.unload_ip_adapter\(\)"),
    "quantised": (quantised, r"the unet is quantised .*Linear8bitLt"),
    "layerwise": (
        lambda pipe: pipe.unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32),
        r"hooks of diffusers \(layerwise_casting\)",
    ),
    "fused attention": (lambda pipe: pipe.fuse_qkv_projections(), r"attention of the unet is fused \(fuse_qkv_proj"),
    "no text encoder": (without("text_encoder"), "StableDiffusionPipeline, and it has no text_encoder"),
    "no tokenizer": (without("tokenizer"), "it has no tokenizer"),
    "no vae": (without("vae", "scheduler"), "it has no scheduler and no vae"),
    "no unet": (without("unet"), "it has no unet"),
    "unet of another family": (
        lambda pipe: setattr(pipe, "unet", build_family("sdxl").unet),
        "of the family stable-diffusion as the unet, got UNet2DConditionModel of another",
    ),
    "text encoder of another width": (
        lambda pipe: setattr(pipe, "text_encoder", build_family("sdxl").text_encoder_2),
        "the parts of the model .* don't fit together: .* must be of one model",
    ),
    "vae of another kind": (
        lambda pipe: setattr(pipe, "vae", tiny_vae(channels=8)),
        "the parts of the model .* don't fit together",
    ),
    "vae that overflows": (
        lambda pipe: pipe.vae.decoder.conv_out.weight.data.fill_(3e38),
        r"from the autoencoder \(vae\), got NaN",
    ),
    "peft model": (wrapped, r"the unet is wrapped in a PeftModel of peft\. Set it to pipe\.unet\.merge_and_unload\(\)"),
    "parallel": (parallel, "as the unet, got DataParallel"),
    "float8": (lambda pipe: pipe.unet.to(torch.float8_e4m3fn), r"the unet is quantised .*float8_e4m3fn.* Load it in"),
    "nan": (nan, r"weights of the vae hold values that are not a number \(NaN\).*decoder\.conv_out\.bias"),
    "longer tokenizer": (longer_tokenizer, r"the tokenizer has \d+ tokens and the text_encoder knows \d+"),
    "endless tokenizer": (endless_tokenizer, "reads 77 tokens, and its tokenizer says no length"),
}


@pytest.mark.parametrize("state", REFUSED)
def test_what_can_t_be_unlearned_is_refused_before_anything_is_done(state, tmp_path):
    pipe = build_family("sd1")
    change, message = REFUSED[state]
    change(pipe)
    with pytest.raises(UserError, match=message) as caught:
        turpentine.unlearn(pipe, "cat", out=tmp_path / "r", **FIELDS)
    assert "\n" not in str(caught.value) and not (tmp_path / "r").exists()


@pytest.mark.parametrize("how", ["enable_sequential_cpu_offload", "enable_model_cpu_offload"])
def test_what_undoes_offloading_is_right(how, plain, tmp_path):
    pipe = build_family("sd1")
    getattr(pipe, how)(device="cpu")
    with pytest.raises(UserError, match="the vae is offloaded"):
        wrap_pipeline(pipe)
    pipe.remove_all_hooks()
    assert same(unlearned(pipe.to("cpu"), tmp_path)[1], plain)


def test_the_refiner_is_refused():
    base = build_family("sdxl")
    config = {key: value for key, value in base.unet.config.items() if not key.startswith("_")}
    unet = UNet2DConditionModel(**{**config, "cross_attention_dim": 48, "projection_class_embeddings_input_dim": 88})
    refiner = StableDiffusionXLImg2ImgPipeline(
        **{**base.components, "unet": unet, "text_encoder": None, "tokenizer": None}, requires_aesthetics_score=True
    )
    with pytest.raises(UserError, match="this is an SDXL refiner"):
        wrap_pipeline(refiner)


@pytest.mark.parametrize("thing", ["not a pipeline", None, 7, {}, torch.nn.Linear(1, 1)])
def test_what_is_no_pipeline(thing, tmp_path):
    with pytest.raises(UserError, match=f"expected a diffusers pipeline of one of .*; got {type(thing).__name__}"):
        turpentine.unlearn(thing, "cat", out=tmp_path / "r")


def test_sd3_may_lack_its_third_text_encoder():
    assert not wrap_pipeline(build_family("sd3-no-t5")).warnings
    pipe = build_family("sd3")
    pipe.tokenizer_3 = None
    with pytest.raises(UserError, match="it has no tokenizer_3"):
        wrap_pipeline(pipe)
