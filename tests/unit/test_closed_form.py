"""The closed forms: each is the minimiser that its docstring names, and leaves alone what it promises to."""

import pytest
import torch
from turpentine.pipeline.maths.closed_form import Moments, Speed, moved_share, rece_map, revived_map, uce_map
from turpentine.pipeline.maths.parameters import select_parameters, text_entrances
from turpentine.pipeline.methods import build_method, find
from turpentine.pipeline.methods.base import Batch, Context
from turpentine.pipeline.models import wrap_pipeline
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.progress import Silent

from ..support.tiny_models import BUILDERS, build_family

WIDTH, PAIRS, OTHERS = 6, 9, 12


def rows(count, seed, width=WIDTH):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(forget, anchor, preserved, invariants=None):
    seen = Moments.of_width(forget.shape[-1])
    seen.see_pairs(forget, anchor)
    seen.see_preserved(preserved)
    seen.invariants = invariants
    return seen


def unit(preserved):
    """The factor that gives preserved inputs a mean square of 1."""
    return preserved.square().mean().rsqrt()


@pytest.mark.parametrize(("erase", "preserve", "lamb"), [(1.0, 1.0, 0.1), (2.0, 0.3, 0.5), (0.1, 0.0, 1.0)])
def test_uce_is_the_minimiser_of_its_loss(erase, preserve, lamb):
    """Least squares over the stacked rows of all three terms."""
    f, a, p, weight = rows(PAIRS, 0), rows(PAIRS, 1), 3 * rows(OTHERS, 2), rows(4, 3)
    edited = weight @ uce_map(moments(f, a, p).scaled(), erase, preserve, lamb)
    f, a, p = (unit(p) * part for part in (f, a, p))
    inputs = torch.cat([f * (erase / PAIRS) ** 0.5, p * (preserve / OTHERS) ** 0.5, lamb**0.5 * torch.eye(WIDTH)])
    wanted = torch.cat([a * (erase / PAIRS) ** 0.5, p * (preserve / OTHERS) ** 0.5, lamb**0.5 * torch.eye(WIDTH)])
    solved = torch.linalg.lstsq(inputs.double(), (wanted.double() @ weight.T)).solution.T
    torch.testing.assert_close(edited, solved)


def test_moments_may_come_in_batches_and_at_any_scale():
    f, a, p = rows(8, 0), rows(8, 1), rows(OTHERS, 2)
    whole, parts = moments(f, a, p).scaled(), Moments.of_width(WIDTH)
    for place in (slice(0, 3), slice(3, 8)):
        parts.see_pairs(5 * f[place].reshape(-1, 1, WIDTH), 5 * a[place].reshape(-1, 1, WIDTH))
        parts.see_preserved(5 * p[place])
    parts.see_preserved(5 * p[8:])
    for name in ("forget", "anchor", "aims", "preserved"):
        torch.testing.assert_close(getattr(parts.scaled(), name), getattr(whole, name))
    assert whole.preserved.trace().item() == pytest.approx(WIDTH)
    with pytest.raises(ValueError, match="pairs and preserved inputs"):
        Moments.of_width(2).scaled()


def test_rece_finds_the_embedding_that_the_edited_layers_read_as_the_concept():
    weights, edit, concept = [rows(5, 4), rows(7, 5)], torch.eye(WIDTH).double() + 0.3 * rows(WIDTH, 6), rows(1, 7)[0]
    gram = sum(weight.T @ weight for weight in weights)
    found = (revived_map(gram, edit, 0.05) @ concept).requires_grad_()
    size = gram.trace() / WIDTH
    loss = sum((w @ edit @ found - w @ concept).square().sum() for w in weights) / size + 0.05 * found.square().sum()
    (slope,) = torch.autograd.grad(loss, found)
    assert slope.abs().max() < 1e-10


def test_a_round_of_rece_edits_what_still_draws_the_concept_without_undoing_the_edit():
    f, a, p, weights = rows(3, 0), rows(3, 1), rows(2, 2), [rows(8, 3)]
    gram, seen = weights[0].T @ weights[0], moments(f, a, p).scaled()
    once, more = uce_map(seen, 1, 1, 0.1), rece_map(seen, gram, 1, 1, 0.1, 1, 0.1)
    revived = seen.seen_as(revived_map(gram, once, 0.1))
    careless = once @ uce_map(revived, 1, 1, 0.1)

    def left(edit, of):
        covered, whole = moved_share(weights, [w @ edit for w in weights], of)
        return 1 - covered / whole

    assert left(more, revived) < left(once, revived)
    assert left(once, seen) < left(more, seen) < left(careless, seen)
    torch.testing.assert_close(rece_map(seen, gram, 1, 1, 0.1, 0, 0.1), once)


def speed(**options):
    return Speed(**{"threshold": 1e-6, "retain_scale": 0.1, "lamb": 0.0, "aug_num": 0} | options)


def test_speed_leaves_preserved_directions_and_invariants_alone():
    f, a, weight = rows(PAIRS, 0, 8), rows(PAIRS, 1, 8), rows(4, 3, 8)
    p = rows(OTHERS, 2, 8) * torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0])  # nothing of it in five directions
    fixed = torch.eye(8, dtype=torch.float64)[7:]
    edited = speed().edited(weight, moments(f, a, p, fixed).scaled(), torch.Generator())
    change = edited - weight
    assert change.abs().max() > 0.05
    assert (change @ p.T).abs().max() < 1e-10 and (change @ fixed.T).abs().max() < 1e-10
    loose = speed(lamb=10.0).edited(weight, moments(f, a, p, fixed).scaled(), torch.Generator()) - weight
    assert (loose @ fixed.T).abs().max() > 1e-3


def test_speed_is_the_minimiser_within_the_null_space():
    f, a, weight = rows(PAIRS, 0, 8), rows(PAIRS, 1, 8), rows(4, 3, 8)
    p = rows(OTHERS, 2, 8) * torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0])
    change = speed().edited(weight, moments(f, a, p).scaled(), torch.Generator()) - weight
    free, scale = change[:, 3:].clone().requires_grad_(), unit(p)
    whole = torch.cat([weight[:, :3], weight[:, 3:] + free], 1)
    loss = scale**2 * (f @ whole.T - a @ weight.T).square().sum() / PAIRS + 0.1 * free.square().sum()
    (slope,) = torch.autograd.grad(loss, free)
    assert slope.abs().max() < 1e-10


def test_speed_refines_what_is_preserved():
    """With nothing free, nothing changes; noisy copies take directions away."""
    f, a, p, weight = rows(PAIRS, 0), rows(PAIRS, 1), rows(OTHERS, 2), rows(4, 3)
    seen = moments(f, a, p).scaled()
    torch.testing.assert_close(speed().edited(weight, seen, torch.Generator()), weight)
    plain = speed(threshold=0.5).edited(weight, seen, torch.Generator().manual_seed(0))
    copies = speed(threshold=0.5, aug_num=10).edited(weight, seen, torch.Generator().manual_seed(0))
    assert not torch.allclose(plain, copies)


def test_the_moment_of_noisy_copies_is_that_of_the_copies():
    weight, plain, p = rows(4, 3), rows(4, 5), rows(OTHERS, 2)
    found = speed(aug_num=7)._kept(weight, plain, p, torch.Generator().manual_seed(3))
    lengths = (p @ plain.T).norm(dim=1)
    kept = p[lengths > lengths.mean()]
    least = torch.linalg.eigh(weight.T @ weight).eigenvectors[:, 0]
    noise = torch.randn(7, len(kept), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    copies = (kept + noise[..., None] * least).flatten(0, 1)
    lengths = (copies @ plain.T).norm(dim=1)
    every = torch.cat([kept, copies[lengths > lengths.mean()]])
    torch.testing.assert_close(found, every.T @ every / len(every))


# the layers that a prompt enters ------------------------------------------------------------------


@pytest.mark.parametrize("family", BUILDERS)
def test_what_is_edited_reads_the_conditioning_itself(family):
    """Of every family: the inputs of these layers are the embeddings, whatever the timestep."""
    denoiser = wrap_pipeline(build_family(family))
    entrances = text_entrances(dict(denoiser.module.named_parameters()))
    conditioning = denoiser.encode_prompts(["a photo of a cat"])
    assert set(entrances) == set(conditioning)
    inputs = {}
    layers = dict(denoiser.module.named_modules())
    for part, named in entrances.items():
        for name in named:
            layer = layers[name.removesuffix(".weight")]
            layer.register_forward_hook(lambda _, given, __, key=(part, name): inputs.update({key: given[0]}))
    config = denoiser.module.config
    channels = config.in_channels // 4 if family.startswith("flux") else config.in_channels
    with torch.no_grad():
        timesteps = denoiser.objective.sample_timesteps(1, torch.Generator().manual_seed(0))
        denoiser.predict(torch.randn(1, channels, 8, 8), timesteps, conditioning)
    assert len(inputs) == sum(map(len, entrances.values()))
    for (part, _), given in inputs.items():
        width = conditioning[part].shape[-1]
        torch.testing.assert_close(given[..., :width], conditioning[part])


def test_a_warm_start_needs_weights_that_read_prompts():
    method = build_method(find("rgd").config(warm_start="uce"))
    module = build_family("sd1").unet
    for which in ("full", "xattn"):
        method.check(4, select_parameters(module, which))
    with pytest.raises(UserError, match=r"method\.warm_start 'uce' edits the layers that a prompt enters, and none"):
        method.check(4, select_parameters(module, "noxattn"))
    assert method.needs_unconditional and method.needs_whole_weights


def test_a_warm_start_says_what_would_help():
    """In a joint attention prompts enter outside of the text stream; where nothing reads them, 'full' won't do."""
    method = build_method(find("rgd").config(warm_start="uce"))
    joint = build_family("sd3").transformer
    for which in ("full", "noxattn"):
        method.check(4, select_parameters(joint, which))
    for weights in (select_parameters(joint, "xattn"), {"conv.weight": torch.nn.Parameter(torch.zeros(1))}):
        with pytest.raises(UserError, match=r"With training\.parameters 'full' every layer trains; if that is"):
            method.check(4, weights)


@pytest.mark.parametrize("name", ["uce", "rece", "speed"])
def test_a_warm_start_edits_what_trains_and_nothing_else(name):
    denoiser = wrap_pipeline(build_family("sd1"))
    before = {key: value.clone() for key, value in denoiser.module.state_dict().items()}
    conditioning = denoiser.encode_prompts(["a photo of a cat", "a dog"])
    parts = {key: rows.split(1) for key, rows in conditioning.items()}
    cat, dog = ({key: rows[place] for key, rows in parts.items()} for place in range(2))
    none = torch.zeros(1)
    batches = {"forget": Batch(none, cat, none, none, dog), "retain": Batch(none, dog, none, none, cat)}
    context = Context(
        denoiser,
        select_parameters(denoiser.module, "xattn"),
        lambda term: iter([batches[term]]),
        denoiser.encode_prompts([""]),
        progress=Silent(),
    )
    build_method(find("rgd").config(warm_start=name)).prepare(context)
    changed = {key for key, value in denoiser.module.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for key in changed)
