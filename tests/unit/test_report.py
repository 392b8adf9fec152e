"""The report of a run. All numbers here are made up: they test the page, not a method."""

import json
import math
import random
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image
from turpentine.comfy_nodes.audit_nodes import Report
from turpentine.comfy_nodes.model import Model
from turpentine.pipeline.audits.nudity import detection_bars
from turpentine.pipeline.commands.figures import show_figures
from turpentine.pipeline.commands.terminal import console
from turpentine.pipeline.report import figures as drawing
from turpentine.pipeline.report import model_card, rows, verdict, write_report
from turpentine.pipeline.report.events import read_columns
from turpentine.pipeline.report.use import snippet
from turpentine.pipeline.schema.results import Results
from turpentine.pipeline.support.errors import UserError
from turpentine.ui.steps.audit import figures_html

from ..support.results import HASH, made_up

KEEP = 4


def event(step: int, rng: random.Random) -> dict:
    cosine = rng.gauss(-0.15, 0.3)
    forget = min(1.6, 0.2 + 0.02 * step)
    return {
        "step": step,
        "loss_forget": forget + rng.gauss(0, 0.02),
        "loss_retain": 0.2 + rng.gauss(0, 0.03),
        "norm_forget": 1.0,
        "norm_retain": 1.0,
        "cosine": cosine,
        "conflict": cosine < 0,
        "truncated": forget >= 1.6,
        "change_forget": -abs(rng.gauss(0, 2e-4)),
        "change_retain": rng.gauss(-1e-4, 5e-5),
        "learning_rate": 1e-5,
        "seconds": 0.9,
    }


def make_run(folder: Path, steps: int = 100, prompt: str | None = None, **changes) -> Path:
    """A whole run folder, with scenes of the tiny-canvas world as pictures."""
    from turpentine.pipeline.bundled.tiny_canvas.render import render
    from turpentine.pipeline.worlds.tiny_canvas import Scene

    rng = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(made_up(**changes)))
    (folder / "recipe.yaml").write_text("concept: astronaut\nmethod:\n  name: rgd\n  forget_limit: 1.6\nseed: 7\n")
    (folder / "events.jsonl").write_text("".join(json.dumps(event(i, rng)) + "\n" for i in range(1, steps + 1)))
    prompts: dict[str, list[str]] = {}
    for name, first, then in (("forget_test", "astronaut", "coffee"), ("retain_test", "cat", "cat")):
        prompts[name] = []
        for index in range(KEEP):
            place, style = ("meadow", "space", "sea", "brick")[index], ("photo", "pop art", "neon", "vintage")[index]
            for when, subject in (("before", first), ("after", then)):
                path = folder / "images" / when / f"{name}-{index:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                render(Scene(subject, place, "sunset", style), random.Random(index)).save(path)
            prompts[name].append(prompt or f"{style} of a {first} in the {place} at sunset")
    (folder / "images" / "prompts.json").write_text(json.dumps(prompts))
    return folder


def results(**changes) -> Results:
    return Results.model_validate(made_up(**changes))


NO_AUDITS = {"before": {}, "after": {}}


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return write_report(make_run(tmp_path_factory.mktemp("run"))).read_text()


def test_page_loads_nothing(page):
    loads = re.findall(r"""(?:src|href|srcset|action|poster|data)\s*=\s*["']([^"']*)""", page)
    loads += re.findall(r"url\(([^)]*)\)", page)
    assert loads
    assert all(load.startswith(("data:image/", "#")) for load in loads), [load[:60] for load in loads]
    assert "http://" not in page and "https://" not in page
    assert "<script" not in page and "@import" not in page and "<link" not in page


def test_page_has_all_sections_and_is_accessible(page):
    assert '<html lang="en">' in page and 'name="viewport"' in page and "prefers-color-scheme: dark" in page
    assert "<h1>astronaut, removed with rgd from tiny-canvas</h1>" in page
    for heading in ("Before and after", "Pictures", "The training", "What NudeNet sees", "The run", "Use the weights"):
        assert f"<h2>{heading}" in page
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) == 4 * KEEP
    assert all('alt="' in picture and 'class="pixelated"' in picture for picture in pictures)
    assert page.index("Forget: prompts") < page.index("Retain: prompts")
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(svgs) == 5
    assert all('role="img" aria-label="' in svg and len(svg) < 100_000 for svg in svgs)
    identifiers = re.findall(r' id="([^"]*)"', page)
    assert len(identifiers) == len(set(identifiers))
    assert "α = 1.6" in page
    assert f'title="{HASH}">0123456789ab…' in page and "2.5 MB" in page and "1 h 02 min" in page
    assert "DiffusionPipeline.from_pretrained(&#34;RUN/weights/diffusers&#34;)" in page
    assert "turpentine unlearn --recipe RUN/recipe.yaml" in page


def test_interference_is_a_table_with_its_victim_named(tmp_path):
    values = [
        {"dimension": "subject", "value": "<b>cat", "before": 1.0, "after": 0.75, "images": 20},
        {"dimension": "style", "value": "neon", "before": 0.9, "after": 0.9, "images": 8},
    ]
    found = {"values": values, "worst": "<b>cat", "hurt": 1}
    folder = make_run(tmp_path / "run", interference=found)
    page = write_report(folder).read_text()
    assert "<h2>Who else was hurt</h2>" in page and "&lt;b&gt;cat (subject), −25.0 points" in page
    assert "1 of 2 other subjects, styles and places lost more than 2 points" in page
    assert "has 8 images, one image is 12.5 points" in page and "<b>cat" not in page
    assert "Hurt most: &lt;b&gt;cat" in (folder / "MODEL_CARD.md").read_text()
    quiet = {"values": values[1:], "worst": "neon", "hurt": 0}
    assert "No other subject, style or place lost accuracy" in model_card(results(interference=quiet))
    assert "Who else was hurt" not in write_report(make_run(tmp_path / "other")).read_text()


def test_a_method_with_one_term_gives_the_curves_it_has(tmp_path):
    folder = make_run(tmp_path, steps=3, method="esd")
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"loss_retain": None, "cosine": None, "norm_retain": None, "change_retain": None, "conflict": False}
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report(folder).read_text()
    assert "It should fall." in page and "It should rise" not in page
    assert "Denoising loss on the retain prompts" not in page and "Angle between" not in page
    assert "never a finite number" not in page


def test_a_mask_is_drawn_by_block(tmp_path):
    import torch
    from turpentine.pipeline.methods.mask import save_mask

    folder = make_run(tmp_path, method="salun")
    mask = {"conv_in.weight": torch.tensor([True, False]), "mid_block.resnets.0.bias": torch.tensor([False] * 6)}
    save_mask(mask, folder / "mask.safetensors")
    page = write_report(folder).read_text()
    assert "Which weights were free to move" in page and "12% in all" in page
    assert "conv_in 50 %; mid_block 0 %" in page


def test_rows_by_hand():
    found = {row.name: row for row in rows(results())}
    assert len(found) == 10
    images = found["Images flagged by NudeNet"]
    assert (images.before_text, images.after_text) == ("62 of 100 (62.0 %)", "2 of 100 (2.0 %)")
    assert images.change == "−60 (−96.8 %)" and images.better == "lower" and images.outcome == "better"
    assert "3.0 % before and 2.0 % after" in images.meaning
    assert (found["NudeNet detections"].before, found["NudeNet detections"].after) == (67, 2)
    forget = found["Alignment, forget"]
    assert forget.before_text == "0.312 [0.306, 0.318]" and forget.change == "−34.6 %" and forget.outcome == "better"
    test = found["Alignment, retain (test)"]
    assert test.change == "−0.4 %" and test.better == "close" and test.outcome == "kept"
    anchor = found["Alignment, forget to anchor"]
    assert anchor.after_text == "0.280 [0.274, 0.286]" and anchor.change == "+12.0 %" and anchor.outcome == "better"
    scene = found["Scene kept"]
    assert scene.after_text == "0.965 [0.945, 0.985]" and scene.change == "−1.5 points" and scene.outcome == "kept"
    accuracy = found["UA (unlearning accuracy)"]
    assert (accuracy.before, accuracy.after, accuracy.change) == (0.04, 0.99, "+95.0 points")
    assert found["IRA (in-domain retain accuracy)"].change == "−0.5 points"
    assert found["CRA (cross-domain retain accuracy)"].change == "0.0 points"


def test_verdict_by_hand():
    found = verdict(results())
    assert found.text == (
        "Forgotten: UA 0.990 (before: 0.040); kept: alignment −0.4 %, IRA −0.5 points, CRA 0.0 points."
    )
    assert verdict(results(instead="a horse")).text == f"{found.text} To be drawn instead: a horse."
    found = verdict(results(kind="nudity"))
    assert found.text.startswith("Forgotten: NudeNet flags 2 of 100 images (before: 62 of 100); kept")


@pytest.mark.parametrize(
    ("before", "after", "forgetting"),
    [(0.0, 0.95, "forgotten"), (0.0, 0.6, "partly"), (0.0, 0.1, "not"), (0.5, 0.4, "not"), (1.0, 1.0, "nothing")],
)
def test_verdict_follows_the_accuracy(before, after, forgetting):
    data = made_up()
    data["audits"]["before"]["accuracy"]["UA"] = before
    data["audits"]["after"]["accuracy"]["UA"] = after
    assert verdict(Results.model_validate(data)).forgetting == forgetting


@pytest.mark.parametrize(
    ("before", "after", "ua", "said"),
    [
        (0.98, 0.02, 0.99, "Forgotten, but the pictures of its prompts are wreckage (scene kept 0.02): UA 0.990 (bef"),
        (0.98, 0.40, 0.70, "Partly forgotten, but the pictures of its prompts are wreckage (scene kept 0.40): UA 0.7"),
        (0.98, 0.00, 0.10, "Not forgotten, but the pictures of its prompts are wreckage (scene kept 0.00): UA 0.100"),
        (0.98, 0.50, 0.99, "Forgotten: UA 0.990"),
        (0.30, 0.20, 0.99, "Forgotten: UA 0.990"),
        (0.00, 0.00, 0.99, "Forgotten: UA 0.990"),
        (None, 0.02, 0.99, "Forgotten: UA 0.990"),
        (0.98, None, 0.99, "Forgotten: UA 0.990"),
    ],
)
def test_the_verdict_tells_wreckage(before, after, ua, said):
    data = made_up()
    for when, scene in (("before", before), ("after", after)):
        data["audits"][when]["accuracy"]["scene"] = scene
    data["audits"]["after"]["accuracy"]["UA"] = ua
    found = verdict(Results.model_validate(data))
    assert found.text.startswith(said) and found.wrecked == ("wreckage" in said)
    assert found.text.endswith("; kept: alignment −0.4 %, IRA −0.5 points, CRA 0.0 points.")


def wreck(data: dict) -> dict:
    data["audits"]["after"]["accuracy"]["scene"] = 0.02
    return data


def test_wreckage_is_no_good_outcome(tmp_path):
    folder = make_run(tmp_path / "run", steps=2, **wreck(made_up()))
    assert '<p class="verdict ">Forgotten, but the pictures' in write_report(folder).read_text()
    assert '<p class="verdict good">Forgotten: UA' in write_report(make_run(tmp_path / "other", steps=2)).read_text()


def on_the_terminal(folder, capsys):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(console, "width", 200)
        show_figures(Results.load(folder / "results.json"))
    return capsys.readouterr().out


FRONT_ENDS = {
    "page": lambda folder, capsys: write_report(folder).read_text(),
    "card": lambda folder, capsys: model_card(Results.load(folder / "results.json")),
    "terminal": on_the_terminal,
    "app": lambda folder, capsys: figures_html(folder),
    "node": lambda folder, capsys: Report().work(Model(None, run=folder))["result"][0],
}


@pytest.mark.parametrize("show", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_every_front_end_tells_wreckage_and_shows_its_figures(tmp_path, capsys, show):
    said = show(make_run(tmp_path, steps=2, **wreck(made_up())), capsys)
    assert "Forgotten, but the pictures of its prompts are wreckage (scene kept 0.02)" in said
    for name, first in (("Scene kept", "0.980"), ("Alignment, forget to anchor", "0.250")):
        assert name in said and first in said.partition(name)[2][:200]


def test_a_class_that_became_noise_is_wreckage():
    def classes(ua, noise):
        interval = {"mean": 0.99, "low": 0.98, "high": 1.0, "images": 90}
        shares = {"UA": ua, "RA": 0.99, "RA_interval": interval, "noise": noise, "by_class": {"1": 0.99}}
        return {"classes": {**shares, "FID": 2.0, "CMMD": 1.0, "images": 100, "real_images": 90}}

    found = verdict(results(kind="class", audits={"before": classes(0.0, 0.0), "after": classes(1.0, 0.97)}))
    assert found.wrecked and "are wreckage (random noise 0.97): UA 1.000" in found.text
    assert not verdict(results(audits={"before": classes(0.0, 0.0), "after": classes(1.0, 0.1)})).wrecked


def test_results_of_before_the_scene_was_measured(tmp_path):
    data = made_up()
    for audits in data["audits"].values():
        del audits["alignment"]["forget_to_anchor"], audits["alignment"]["intervals"]["forget_to_anchor"]
        for key in ("scene", "scene_interval", "scene_by_dimension"):
            del audits["accuracy"][key]
    folder = make_run(tmp_path / "run", steps=2, **data)
    read = Results.load(folder / "results.json")
    assert len(rows(read)) == 8 and verdict(read).text == verdict(results()).text
    page = write_report(folder).read_text()
    assert "Scene kept" not in page and "forget to anchor" not in page


def test_an_open_world_tells_both_alignments():
    audits = made_up()["audits"]
    only = {when: {"alignment": found["alignment"]} for when, found in audits.items()}
    told = (
        "Forgetting not counted; alignment with the forget prompts −34.6 %, with what should be drawn instead +12.0 %"
    )
    assert verdict(results(audits=only)).text == f"{told}; kept: alignment −0.4 %."


@pytest.mark.parametrize(("after", "keeping"), [(0.30, "kept"), (0.27, "mostly"), (0.20, "damaged")])
def test_verdict_follows_the_alignment(after, keeping):
    data = made_up()
    data["audits"]["after"]["alignment"]["retain_test"] = after
    found = verdict(Results.model_validate(data))
    assert found.keeping == keeping


def test_nudity_at_the_floor_counts_as_forgotten():
    data = made_up(kind="nudity")
    data["audits"]["before"]["nudity"]["images_with_any"] = 5
    data["audits"]["after"]["nudity"] |= {"images_with_any": 2, "floor": 0.02}
    assert verdict(Results.model_validate(data)).forgetting == "forgotten"
    data["audits"]["after"]["nudity"]["floor"] = 0.0
    assert verdict(Results.model_validate(data)).forgetting == "partly"


def test_change_inside_the_intervals_is_unclear():
    data = made_up()
    data["audits"]["after"]["alignment"]["forget"] = 0.310
    data["audits"]["after"]["alignment"]["intervals"]["forget"] = {"mean": 0.31, "low": 0.3, "high": 0.32, "images": 9}
    found = {row.name: row for row in rows(Results.model_validate(data))}
    assert found["Alignment, forget"].outcome == "unclear"


def test_no_audits(tmp_path):
    run = make_run(tmp_path / "run", audits=NO_AUDITS)
    page = write_report(run).read_text()
    assert rows(Results.load(run / "results.json")) == []
    assert "Forgetting not measured; keeping not measured." in page
    assert "No audit was asked for" in page and "What NudeNet sees" not in page
    assert "No audit was asked for" in (run / "MODEL_CARD.md").read_text()


def test_an_audit_on_one_side_only():
    audits = made_up()["audits"]
    found = rows(results(audits={"before": {}, "after": audits["after"]}))
    assert len(found) == 10
    assert all(math.isnan(row.before) and row.before_text == "—" and row.change == "—" for row in found)
    assert {row.outcome for row in found} == {"unknown"}


def test_numbers_that_are_none(tmp_path):
    data = made_up()
    data["audits"]["after"]["accuracy"] |= {"UA": math.nan, "IRA": math.nan}
    data["audits"]["after"]["alignment"]["retain_test"] = math.inf
    data["timings"]["audits"] = math.nan
    run = make_run(tmp_path / "run", **data)
    broken = [event(1, random.Random(1)) | {"loss_forget": math.nan, "cosine": None, "change_retain": math.inf}]
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in broken * 2))
    page = write_report(run).read_text()
    text = re.sub(r"data:image/[^\"]*|<svg.*?</svg>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(nan|inf)\b", text)
    assert "Forgetting not measurable: UA — (before: 0.040)" in page


@pytest.mark.parametrize("steps", [0, 1])
def test_short_runs(tmp_path, steps):
    page = write_report(make_run(tmp_path / "run", steps=steps)).read_text()
    assert ("recorded no training steps" in page) == (steps == 0)


def test_long_runs_stay_small(tmp_path):
    page = write_report(make_run(tmp_path / "run", steps=5000)).read_text()
    assert all(len(svg) < 100_000 for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "Curves: means of 300 stretches" in page


def test_violations_are_counted_over_all_steps(tmp_path):
    rng = random.Random(3)
    lines = [event(i, rng) | {"change_retain": 1e-3 if i % 4 == 0 else -1e-3} for i in range(1, 1001)]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "for retain in 25.0 %" in drawing.changes(read_columns(path))


@pytest.mark.parametrize(
    "attack",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "$title ${verdict} $x",
        "{{ results }} {% raw %}",
        """a cat" onmouseover="alert(1)" x='&amp; it's""",
    ],
)
def test_untrusted_text(tmp_path, attack):
    run = make_run(tmp_path / "run", steps=2, prompt=attack, concept=attack, method="rgd", warnings=[attack])
    page = write_report(run).read_text()
    assert "<script" not in page and "src=x" not in page.replace("&lt;img src=x", "")
    card = (run / "MODEL_CARD.md").read_text()
    assert "<script" not in card.split("```")[0] and "<img" not in card.split("```")[0]
    if attack.startswith(("$", "{")):
        assert page.count(attack) >= 3
    read = Parsed(page)
    assert f"{attack}, removed with rgd from tiny-canvas" in read.texts and attack in read.texts
    assert not {name for name in read.attributes if name.startswith("on")} and "script" not in read.tags
    assert {f"{when}: {attack}" for when in ("before", "after")} <= read.attributes.get("alt", set())


class Parsed(HTMLParser):
    """Tags, attributes and texts of a page as a browser finds them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), {}, set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value)

    def handle_data(self, data):
        self.texts.add(data)


def test_labels_of_any_text_are_drawn():
    nudity = results().audits.before.nudity.model_copy(update={"detections": {"$<b>_{": 3}})
    svg = drawing.paired_bars(detection_bars(nudity, None))
    assert "$&lt;b&gt; {" in svg and "<b>" not in svg


def test_pictures(tmp_path):
    run = make_run(tmp_path / "run", steps=2, kind="nudity")
    for when in ("before", "after"):
        Image.new("RGB", (512, 512), "teal").save(run / "images" / when / "forget_test-000.png")
    (run / "images" / "after" / "forget_test-001.png").unlink()
    page = write_report(run).read_text()
    assert page.count("data:image/jpeg") == 2
    assert page.count("<img ") == 4 * KEEP - 2
    assert 'id="reveal"' in page


def test_no_pictures(tmp_path):
    run = make_run(tmp_path / "run", steps=2)
    (run / "images").rename(run / "elsewhere")
    assert "No images were kept of this run." in write_report(run).read_text()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("events.jsonl", b'{"step": 1', r"1 of 1 lines of .*events\.jsonl can't be read .* line 1: "),
        ("events.jsonl", b"[1]", r"1 of 1 lines of"),
        ("events.jsonl", b"\xff\xfe\x00\n\x80", r"2 of 2 lines of"),
        ("images/prompts.json", b"{", r"prompts\.json can't be read: pictures are shown without their prompts"),
        ("images/prompts.json", b"[]", r"prompts\.json can't be read"),
        ("images/prompts.json", b"\xff", r"prompts\.json can't be read"),
        ("images/before/forget_test-000.png", b"no picture", r"expected a PNG at .* It is left out"),
        ("images/after/retain_test-001.png", b"", r"expected a PNG at .* It is left out"),
        ("mask.safetensors", b"no mask", r"can't read the mask .* It is left out"),
    ],
)
def test_what_cannot_be_read_is_left_out_with_a_word(tmp_path, file, content, message):
    run, told = make_run(tmp_path / "run", steps=2), []
    (run / file).write_bytes(content)
    page = write_report(run, told.append).read_text()
    assert len(told) == 1 and re.search(message, told[0]) and "\n" not in told[0]
    assert Path(file).name in unescape(page), "the page tells it too"


def test_the_page_shows_the_recipe_that_was_carried_out(tmp_path):
    run = make_run(tmp_path / "run", steps=2)
    (run / "recipe.yaml").write_text("concept: of-a-later-edit\n")
    assert "of-a-later-edit" not in write_report(run).read_text()


@pytest.mark.parametrize(
    ("warm_start", "start"), [("none", "It starts at zero and"), ("uce", "the edit before the first step left it and")]
)
def test_the_retain_distance_starts_where_it_does(tmp_path, warm_start, start):
    recipe = {"method": {"name": "rgd", "retain": "distil", "warm_start": warm_start}}
    run = make_run(tmp_path / "run", steps=2, recipe=recipe)
    lines = (json.loads(line) | {"distils": True} for line in (run / "events.jsonl").read_text().splitlines())
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report(run).read_text()
    assert start in page and page.count("Distance on retain prompts") == 1
    assert ("starts at zero" in page) is (warm_start == "none")


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ([], "read changes, not absolute"),
        (["alignment"], "- The judge of these figures (alignment) errs itself; read changes, not absolute figures."),
        (["nudity", "alignment"], "- The judges of these figures (nudity and alignment) err themselves; read changes"),
    ],
)
def test_the_card_names_who_judged(kept, told):
    figures = {name: made_up()["audits"]["after"][name] for name in kept}
    card = model_card(results(audits={"before": figures, "after": figures}))
    assert (told in card) is bool(kept) and "NudeNet, CLIP" not in card


def test_no_results(tmp_path):
    with pytest.raises(UserError, match="expected the results of a finished run"):
        write_report(tmp_path)


def test_model_card():
    card = model_card(results(warnings=["few | images"]))
    front = yaml.safe_load(card.split("---")[1])
    assert front == {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "base_model": "tiny-canvas",
        "tags": ["unlearning", "turpentine", "concept-erasure"],
    }
    assert "# astronaut, removed with rgd from tiny-canvas" in card
    assert verdict(results()).text in card
    for row in rows(results()):
        assert row.change in card
    assert HASH in card and "few \\| images" in card and "ko2024boosting" in card
    recipe = re.search(r"```yaml\n(.*?)```", card, re.DOTALL).group(1)
    assert yaml.safe_load(recipe) == made_up()["recipe"]


def test_card_hides_local_folders():
    model = {"name": "/home/someone/models/sd-v1", "family": "stable-diffusion", "sha256": HASH}
    card = model_card(results(model=model))
    assert "/home/someone" not in card and "from sd-v1" in card and "base\\_model" not in card
    assert "base_model" not in card


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ("lora_diffusers", "load_lora_weights"),
        ("single_file", "StableDiffusionPipeline.from_single_file"),
        ("lora", "turpentine.apply"),
        ("delta", "turpentine.apply"),
        ("denoiser", "turpentine.apply"),
    ],
)
def test_snippets(format_, expected):
    weights = [{"path": "weights/x.safetensors", "format": format_, "sha256": HASH, "bytes": 1}]
    assert expected in model_card(results(weights=weights))
    assert "wrote no weights" in model_card(results(weights=[]))


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("stable-diffusion-xl", "StableDiffusionXLPipeline.from_single_file"),
        ("stable-diffusion-3", "StableDiffusion3Pipeline.from_single_file"),
        ("flux", "load it with from_single_file of the base model's class"),
        ("of another version", "load it with from_single_file of the base model's class"),
    ],
)
def test_a_single_file_is_loaded_by_its_familys_class(family, expected):
    weights = [{"path": "weights/x.safetensors", "format": "single_file", "sha256": HASH, "bytes": 1}]
    model = {"name": "m", "family": family, "sha256": HASH}
    assert expected in model_card(results(weights=weights, model=model))


def test_a_format_of_another_version_is_told(tmp_path):
    """Results may come from a version that knows more formats."""
    weights = [{"path": "weights/x.bin", "format": "of tomorrow", "sha256": HASH, "bytes": 1}]
    assert "of the format 'of tomorrow', which this version of Turpentine doesn't know" in snippet(
        results(weights=weights)
    )
    weights.append({"path": "weights/x.safetensors", "format": "delta", "sha256": HASH, "bytes": 1})
    assert "turpentine.apply" in snippet(results(weights=weights))
