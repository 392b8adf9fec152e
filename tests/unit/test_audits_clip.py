import json
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from turpentine.pipeline.audits import BUNDLED_JUDGE, AlignmentAudit, ClipModel, clip
from turpentine.pipeline.bundled.tiny_canvas.tokenizer import train_tokenizer
from turpentine.pipeline.support.errors import MissingExtra, UserError

PROMPTS = ["a photo of a cat", "pixel art of a horse", "a sketch of a rocket", "neon art of a cat"]


def images(count=4, size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained CLIP in the format of the bundled judge, its weights in half precision."""
    out = tmp_path_factory.mktemp("judge")
    tokenizer = train_tokenizer(24)
    tokenizer.save_pretrained(out)
    eos_id = json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]["<|endoftext|>"]
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
            "text_cfg": {
                "context_length": 24,
                "vocab_size": tokenizer.vocab_size,
                "hf_tokenizer_name": "untrained",
                "width": 32,
                "heads": 2,
                "layers": 1,
                "pool_type": "eos",
                "eos_id": eos_id,
            },
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
    }
    (out / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.CLIP(**config["model_cfg"])
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, out / "open_clip_model.safetensors")
    return out


@pytest.fixture(scope="module")
def model(folder):
    return ClipModel.load(str(folder))


def test_half_precision_weights_are_computed_in_single(model):
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_features_are_unit_norm_single_precision_and_independent_of_the_batches(model):
    for whole, parts in (
        (model.encode_images(images()), model.encode_images(images(), batch_size=3)),
        (model.encode_texts(PROMPTS), model.encode_texts(PROMPTS, batch_size=3)),
    ):
        assert whole.shape == (4, 16)
        assert whole.dtype == torch.float32
        torch.testing.assert_close(whole.norm(dim=-1), torch.ones(4))
        torch.testing.assert_close(whole, parts)


def test_features_are_open_clip_s_own(model, folder):
    source = f"local-dir:{folder}"
    module, transform = open_clip.create_model_from_pretrained(source)
    module.eval()
    batch = torch.stack([transform(Image.fromarray(one)) for one in images()])
    with torch.no_grad():
        expected = module.encode_image(batch, normalize=True)
        texts = module.encode_text(open_clip.get_tokenizer(source)(PROMPTS), normalize=True)
    torch.testing.assert_close(model.encode_images(images()), expected)
    torch.testing.assert_close(model.encode_texts(PROMPTS), texts)


def test_images_of_any_size_and_form(model):
    mixed = [Image.fromarray(images(1, 64)[0]), Image.fromarray(images(1, 48)[0]), Image.new("RGB", (80, 40))]
    assert model.encode_images(mixed).shape == (3, 16)


def test_names_of_the_same_folder(model, folder):
    again = ClipModel.load(f"local-dir:{folder}")
    torch.testing.assert_close(again.encode_texts(PROMPTS), model.encode_texts(PROMPTS))


def test_score_is_the_cosine_of_each_pair(model):
    scores = AlignmentAudit(model).score(images(), PROMPTS)
    expected = (model.encode_images(images()) * model.encode_texts(PROMPTS)).sum(-1)
    assert scores.shape == (4,)
    torch.testing.assert_close(scores, expected)


def test_paper_transform_crops_at_random_but_repeatably(model):
    plain = AlignmentAudit(model).score(images(), PROMPTS)
    paper = AlignmentAudit(model, transform="paper")
    state = torch.get_rng_state()
    first = paper.score(images(), PROMPTS)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(7)
    assert torch.equal(first, paper.score(images(), PROMPTS))
    assert not torch.allclose(first, plain)
    assert not torch.allclose(first, AlignmentAudit(model, transform="paper", seed=1).score(images(), PROMPTS))


def test_result_has_means_and_intervals(model, folder):
    sets = {
        "forget": (images(4, seed=1), PROMPTS),
        "retain_train": (images(3, seed=2), PROMPTS[:3]),
        "retain_test": (images(4, seed=3), PROMPTS),
    }
    audit = AlignmentAudit(model)
    result = audit(sets)
    assert result.model == str(folder)
    for key, pair in sets.items():
        mean = audit.score(*pair).double().mean().item()
        assert getattr(result, key) == pytest.approx(mean)
        interval = result.intervals[key]
        assert interval.low <= interval.mean == getattr(result, key) <= interval.high
        assert interval.images == len(pair[1])
    assert audit(sets) == result
    assert AlignmentAudit(model, transform="paper")(sets).model == f"{folder}, training transform"


def test_the_same_features_are_compared_with_the_anchors(model, monkeypatch):
    encoded = []
    encode = ClipModel.encode_images
    monkeypatch.setattr(ClipModel, "encode_images", lambda *args, **more: encoded.append(1) or encode(*args, **more))
    sets = dict.fromkeys(AlignmentAudit.SETS, (images(), PROMPTS))
    anchors = PROMPTS[::-1]
    result = AlignmentAudit(model)(sets, anchors=anchors)
    assert len(encoded) == 3, "one more list of prompts needs no image twice"
    assert result.forget_to_anchor == pytest.approx(AlignmentAudit(model).score(images(), anchors).mean().item())
    plain = AlignmentAudit(model)(sets)
    assert plain == result.model_copy(update={"forget_to_anchor": None, "intervals": plain.intervals})
    with pytest.raises(UserError, match="got 4 images and 3 prompts"):
        AlignmentAudit(model)(sets, anchors=anchors[:3])


def test_the_alignment_with_anchors_is_a_row_where_it_was_measured(model):
    sets = dict.fromkeys(AlignmentAudit.SETS, (images(), PROMPTS))
    old, new = AlignmentAudit(model)(sets), AlignmentAudit(model)(sets, anchors=PROMPTS)
    assert "Alignment, forget to anchor" not in {row.name for row in AlignmentAudit.rows(old, old)}
    (row,) = [row for row in AlignmentAudit.rows(old, new) if row.name == "Alignment, forget to anchor"]
    assert row.before_text == "—" and row.after == new.forget and row.outcome == "unknown"
    better = new.model_copy(update={"forget_to_anchor": 3 * new.forget, "intervals": {}})
    assert AlignmentAudit.rows(new, better)[1].outcome == ("better" if new.forget > 0 else "worse")
    assert "instead" in AlignmentAudit.forgetting("object", new, better).text
    assert "instead" not in AlignmentAudit.forgetting("object", old, new).text


def test_bad_arguments_are_refused(model):
    with pytest.raises(UserError, match=r"transform must be one of \['validation', 'paper'\], got 'training'"):
        AlignmentAudit(model, transform="training")
    with pytest.raises(UserError, match="got 4 images and 3 prompts"):
        AlignmentAudit(model).score(images(), PROMPTS[:3])
    with pytest.raises(UserError, match=r"the sets \['forget', 'retain_train', 'retain_test'\], got \['forget'\]"):
        AlignmentAudit(model)({"forget": (images(), PROMPTS)})
    for nothing in ([], "a cat"):
        with pytest.raises(UserError, match="list of at least one prompt"):
            model.encode_texts(nothing)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-23/laion2b_s34b_b79k", r"got 'ViT-B-23/laion2b_s34b_b79k'. Did you mean .*ViT-B-32"),
        ("ViT-B-32/laion3b", r"weights of ViT-B-32 that open_clip knows, .*laion2b_s34b_b79k.*, got 'laion3b'"),
        ("ViT-B-32", "Weights of ViT-B-32: .*laion2b_s34b_b79k"),
        ("zzz", "expected a CLIP model as 'tiny-canvas', 'architecture/pretrained'"),
        ("local-dir:/no/such/folder", r"open_clip_config.json in /no/such/folder, found none. Check the path"),
        ("", "expected a CLIP model"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        ClipModel.load(name)


def test_a_folder_without_weights_or_with_broken_ones(folder, tmp_path):
    for file in folder.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="The folder needs its config, weights and tokenizer"):
        ClipModel.load(str(tmp_path))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match="can't load the CLIP model"):
        ClipModel.load(str(tmp_path))


def test_a_missing_judge_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(clip, "BUNDLED_JUDGE", tmp_path / "judge")
    with pytest.raises(UserError, match=r"found none\. Reinstall turpentine"):
        AlignmentAudit().score(images(), PROMPTS)


def test_without_open_clip_the_error_names_the_extra(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtra, match=r'pip install "turpentine\[clip\]"'):
        ClipModel.load(str(folder))


def test_loading_leaves_logging_as_it_was(folder):
    # a process of its own, because pytest configures logging
    code = (
        "import logging, sys; from turpentine.pipeline.audits import ClipModel; "
        "ClipModel.load(sys.argv[1]); assert not logging.getLogger().handlers"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_offline_the_error_says_what_to_do(tmp_path):
    # a process of its own, because huggingface_hub reads the variables when it is imported
    code = "from turpentine.pipeline.audits import ClipModel; ClipModel.load('ViT-B-32/laion2b_s34b_b79k')"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "UserError: can't load the CLIP model 'ViT-B-32/laion2b_s34b_b79k'" in done.stderr
    assert "neither in the local cache nor could it be fetched" in done.stderr


@pytest.mark.skipif(not BUNDLED_JUDGE.is_dir(), reason="the bundled judge is not part of this checkout")
def test_the_bundled_judge_prefers_the_right_caption():
    from turpentine.pipeline.bundled.tiny_canvas.dataset import draw_scenes
    from turpentine.pipeline.worlds.tiny_canvas import scenes

    chosen = [scene for scene in scenes() if scene.held_out][:40]
    pixels = draw_scenes(chosen, seed=5, processes=1)
    prompts = [next(scene.phrases()) for scene in chosen]
    audit = AlignmentAudit("tiny-canvas")
    right, wrong = audit.score(pixels, prompts), audit.score(pixels, prompts[20:] + prompts[:20])
    assert right.mean() > wrong.mean() + 0.2
