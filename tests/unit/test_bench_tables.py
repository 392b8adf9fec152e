"""What the pages of the tables compute: trade-offs, the plane of the update, and the sentences at the end."""

from math import hypot

import pytest
import torch
from turpentine.benchmarks.canvas import _key, figures, mean_text, recipe_of
from turpentine.benchmarks.pareto import area, beaten, front
from turpentine.benchmarks.show import claims
from turpentine.benchmarks.table import Options, Record
from turpentine.benchmarks.tables import auto, canvas, chain, concepts, rules, tradeoff, transformer, update
from turpentine.pipeline.maths.rules import combine, restricted
from turpentine.pipeline.schema.results import Results

from ..support.results import made_up


def test_front_keeps_what_no_other_point_beats():
    assert front([(0.2, 0.7), (0.5, 0.9), (0.6, 0.8), (0.2, 0.6), (0.5, 0.9)]) == [(0.2, 0.7), (0.5, 0.9)]
    assert front([]) == []


def test_area_is_what_a_curve_dominates():
    assert area([(0.0, 1.0)]) == 1
    assert area([(1.0, 1.0)]) == 0, "the base model alone has forgotten nothing"
    assert area([(0.5, 0.8)]) == pytest.approx(0.4)
    assert area([(0.5, 0.8), (0.25, 0.4)]) == pytest.approx(0.25 * 0.4 + 0.5 * 0.8)
    assert area([]) == 0


def test_area_ignores_beaten_points_and_clips_gains():
    best = [(0.5, 0.8), (0.25, 0.4)]
    assert area([*best, (0.6, 0.5)]) == area(best)
    assert area([(0.5, 1.2)]) == area([(0.5, 1.0)])


def test_a_row_is_beaten_by_what_is_no_worse_in_anything():
    rows = {"a": (1.0, 0.5, 0.5), "b": (0.9, 0.5, 0.5), "c": (0.5, 1.0, 0.5), "d": (0.85, 0.45, 0.5)}
    assert beaten(rows) == {"b": "a", "d": "a"}
    assert beaten(rows, tie=0.2) == {}
    assert beaten({"a": (1.0, 0.5), "b": (1.0, 0.5)}) == {}, "equals don't beat each other"
    assert beaten({"a": (1.0, 0.5), "b": (0.996, 0.5)}, tie=0.005) == {}


def rules_records(scene=True):
    figures = {  # UA, scene, alignment, relearned
        ("ascend", "sum"): (0.90, 0.0, 0.70, 0.9),
        ("ascend", "restricted"): (1.00, 0.0, 0.73, 0.9),
        ("redirect", "sum"): (0.97, 0.98, 0.735, 0.4),
        ("redirect", "famo"): (0.90, 0.90, 0.70, 0.3),
    }
    records = {}
    for seed in (0, 1):
        base = {"retain_test": 0.736, "UA": 0.0}
        records[f"none/{seed}"] = Record({"row": "none", "concept": "cat", "tag": ""}, seed, 1.0, base, {})
        for (loss, rule), (forgotten, kept, alignment, again) in figures.items():
            own = {"UA": forgotten, "IRA": 1.0, "CRA": 1.0, "retain_test": alignment, "seconds": 60, "peak_memory": 9e6,
                   "relearned": [again, again - 0.1, again - 0.2]} | ({"scene": kept} if scene else {})  # fmt: skip
            labels = {"row": "rgd", "concept": "cat", "tag": f"{loss}, {rule}"}
            records[f"{loss}/{rule}/{seed}"] = Record(labels, seed, 1.0, own, {})
    return records


def test_page_of_rules_names_the_front_and_what_beats_the_rest(tmp_path):
    page = rules.page(rules_records(), tmp_path)
    assert (
        "| ascend, restricted | 1.000 | 1.000 | 1.000 | 1.000 | 0.000 | 0.82 % | 0.90, 0.80, 0.70 | 60 | 9 | ✓ |"
        in page
    )
    assert "The paper's RGD (ascend, restricted) is on the front." in page
    assert "adds to the plain sum with ascend: UA +0.100, scene kept +0.000, alignment kept +0.041" in page
    assert "- ascend, sum is beaten by ascend, restricted: UA 0.900 against 1.000" in page
    assert "- redirect, famo is beaten by redirect, sum" in page and "redirect, sum is beaten" not in page
    assert (tmp_path / "rules.svg").read_text().count("<svg") == 1
    without = rules.page(rules_records(scene=False), tmp_path)
    assert "| 1.000 | – | 0.82 % |" in without and "The front is of UA, alignment kept, UA after relearning" in without


def test_cells_of_rules():
    found = rules.cells(Options(seeds=(0, 1)))
    assert len(found) == len({cell.key for cell in found}) == 2 * 3 * (1 + 2 * len(rules.RULES))
    settings = {cell.labels["tag"]: cell.settings["method"] for cell in found if cell.labels["row"] == "rgd"}
    assert settings["redirect, bisector"]["combine"] == "bisector"
    assert settings["redirect, bisector"]["forget"] == "redirect"
    assert rules.TABLE.seeds == (0, 1) and not rules.TABLE.store, "cells that relearn are kept apart"


def test_plane_has_the_angles_of_the_long_vectors():
    generator = torch.Generator().manual_seed(0)
    forget = torch.randn(50, generator=generator, dtype=torch.float64)
    retain = 3 * torch.randn(50, generator=generator, dtype=torch.float64) - forget
    direction = combine({"forget": [forget], "retain": [retain]}, restricted, 2.0)[0]
    cosine = float(forget @ retain / forget.norm() / retain.norm())
    assert cosine < 0
    vectors = update.plane(float(forget.norm()), float(retain.norm()), cosine, 2.0)
    for name, long in (("restricted", direction), ("sum", forget + 2 * retain)):
        assert hypot(*vectors[name]) == pytest.approx(float(long.norm()))
        for gradient, other in (("forget", forget), ("retain", retain)):
            assert update._dot(vectors[name], vectors[gradient]) == pytest.approx(float(long @ other))
    assert update._dot(vectors["delta_forget"], vectors["retain"]) == pytest.approx(0, abs=1e-9)
    assert update._dot(vectors["delta_retain"], vectors["forget"]) == pytest.approx(0, abs=1e-9)


def test_the_plain_sum_raises_the_loss_of_the_smaller_gradient():
    vectors = update.plane(1.0, 10.0, -0.5, 1.0)
    assert update.raises(vectors, "sum") == ["forget"] and update.raises(vectors, "restricted") == []
    said = update.verdict([vectors, vectors], [True, False])
    assert "conflict in 1 of 2 steps" in said and "sum raises the forget loss in 1 and the retain loss in 0" in said
    assert said.endswith("shows holds here.")
    mild = update.plane(1.0, 1.0, -0.5, 1.0)
    assert update.verdict([mild], [True]).endswith("does not hold here.")
    assert "none of 1 steps" in update.verdict([update.plane(1.0, 1.0, 0.5, 1.0)], [False])


def test_claims():
    assert claims({"a": True, "b": False}) == "Of the paper's claims 1 of 2 hold here. a: yes; b: no."
    assert claims({}) == "There is no claim to check."


def measured(row, concept, **figures):
    known = {"UA": 1.0, "IRA": 1.0, "CRA": 1.0, "forget": 0.1, "retain_train": 0.7, "retain_test": 0.7, "hurt": 0}
    known |= {
        "violations": [0, 0],
        "conflict": 0,
        "seconds": 1.0,
        "peak_memory": 1e6,
        "retain_test_interval": [0.6, 0.8],
    }
    return Record({"row": row, "concept": concept, "tag": ""}, 0, 1.0, known | figures, {})


def test_a_figure_that_came_later_is_a_dash_in_older_records():
    old, new = measured("rgd", "cat"), measured("rgd", "cat", scene=0.5)
    assert mean_text([new, new], "scene") == "0.500" and mean_text([new], "UA") == "1.000"
    for records in ([old], [old, new], [measured("rgd", "cat", scene=None)], []):
        assert mean_text(records, "scene") == "–"


def test_the_tables_show_the_scene_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(canvas, "methods", lambda: ["salun", "rgd"])
    records = {f"{row}{scene}": measured(row, "cat", **scene) for row, scene in
               (("none", {}), ("salun", {"scene": 0.95}), ("rgd", {}))}  # fmt: skip
    page = canvas.page(records, tmp_path)
    header, salun, rgd = (next(line for line in page.splitlines() if line.startswith(start))
                          for start in ("|  | UA", "| SalUn", "| RGD"))  # fmt: skip
    place = [cell.strip() for cell in header.split("|")].index("scene kept ↑")
    assert [line.split("|")[place].strip() for line in (salun, rgd)] == ["0.950", "–"]
    table = concepts._alignment("object", records)
    assert (
        "| UA ↑ | scene kept ↑ |" in table and "| SalUn | 1.000 | 0.950 |" in table and "| RGD | 1.000 | – |" in table
    )


def test_cells_record_the_scene():
    found = figures(Results.model_validate(made_up()).audits.after)
    assert found["scene"] == 0.965 and found["scene_by_dimension"] == {"style": 0.965, "time": 0.6}
    assert found["forget_to_anchor"] == 0.28


def test_canvas_verdict_is_computed():
    means = {
        "GradDiff": {"UA": 1.0, "IRA": 0.2, "CRA": 0.3},
        "RG": {"UA": 0.9, "IRA": 0.6, "CRA": 0.6},
        "RGD": {"UA": 0.95, "IRA": 0.9, "CRA": 0.9},
    }
    said = canvas.verdict(means)
    assert said.startswith("By the mean of the three: RGD 0.917, RG 0.700, GradDiff 0.500.")
    assert "RGD's UA is the highest: no" in said and "RG is above GradDiff: yes" in said and "2 of 3" in said


def test_transformer_verdict_is_computed():
    kept = {"tiny-canvas": 0.30, "ESD": 0.25, "SalUn": 0.26, "RGD": 0.29}
    means = {name: {"D_r,train": value, "D_r,test": value} for name, value in kept.items()}
    said = transformer.verdict(means, {"tiny-canvas": 90, "ESD": 0, "SalUn": 3, "RGD": 1})
    assert "RGD detects no more than ESD and SalUn: no" in said and "SalUn loses the most: no" in said
    assert "RGD keeps more of D_r,test than ESD: yes" in said and "2 of 4" in said
    assert "D_r,test of SalUn below ESD (here 0.260 and 0.250)" in said
    assert "detections of RGD below ESD (here 1.000 and 0.000)" in said


def test_tradeoff_verdict_names_who_is_on_the_front():
    base = {0: (1.0, 1.0)}
    curves = {"rgd": {**base, 9: (0.2, 0.9)}, "rg": {**base, 9: (0.1, 0.5)}, "esd": {**base, 9: (0.8, 0.7)}}
    areas = {row: area(found.values()) for row, found in curves.items()}
    best = front(point for found in curves.values() for point in found.values())
    said = tradeoff.verdict(areas, curves, best)
    assert said.startswith("By area: RGD, RG, ESD.")
    assert "not RGD's: RG (0.10 left, 0.500 kept)." in said and "RGD's area is larger than ESD's: yes" in said
    alone = {**curves, "rg": {**base, 9: (0.3, 0.5)}}
    assert "Every point of the front is RGD's." in tradeoff.verdict(areas, alone, front(curves["rgd"].values()))


def test_a_curve_begins_at_the_base_model_and_is_a_mean_over_seeds():
    def record(row, steps, ua, retain):
        figures, settings = {"UA": ua, "retain_test": retain}, {"training": {"steps": steps}}
        return Record({"row": row}, 0, 1.0, figures, settings)

    records = [record("rgd", 8, 0.9, 0.4), record("rgd", 4, 0.8, 0.5), record("rgd", 4, 0.6, 0.7)]
    points = tradeoff.curve([*records, record("none", 8, 0.02, 0.8), record("rg", 8, 0.1, 0.1)], "rgd")
    assert list(points) == [0, 4, 8]
    assert points == {0: pytest.approx((0.98, 1.0)), 4: pytest.approx((0.3, 0.75)), 8: pytest.approx((0.1, 0.5))}


def test_auto_compares_the_worst_concepts(tmp_path):
    def record(row, concept, tag, ua, retain):
        figures = {"UA": ua, "IRA": 1.0, "CRA": 1.0, "retain_test": retain, "steps": 100}
        return Record({"row": row, "concept": concept, "tag": tag}, 0, 1.0, figures, {})

    records = {}
    for concept, fixed, measured in (("cat", (1.0, 0.5), (0.9, 0.78)), ("neon", (0.8, 0.8), (1.0, 0.8))):
        of_row = {"": fixed, "auto": measured}
        records[f"none{concept}"] = record("none", concept, "", 0.0, 0.8)
        for tag, (ua, retain) in of_row.items():
            records[f"rgd{concept}{tag}"] = record("rgd", concept, tag, ua, retain)
    found = {row: auto.values(list(records.values()), row) for row in auto.ROWS}
    assert found["fixed"]["UA ↑"] == {"cat": 1.0, "neon": 0.8}
    assert found["auto"]["retain-test loss, % ↓"] == pytest.approx({"cat": 2.5, "neon": 0.0})
    said = auto.verdict(found)
    assert "UA 0.90 against 0.80: yes" in said and "loss, % 2.50 against 37.50: yes" in said
    page = auto.page(records, tmp_path)
    assert "| fixed | 0.90 ± 0.14 (0.80)" in page and "(37.50)" in page and "| neon |" in page


def test_the_page_of_a_chain_tells_what_resurfaces_and_what_returns(tmp_path):
    order = ["astronaut", "photo", "cat"]

    def record(what, step, concept, shares, equal=False, number=16):
        drawn = {name: [share, number] for name, share in zip(order, shares, strict=True)}
        labels = {"what": what, "step": str(step), "concept": concept}
        return Record(labels, 0, 1.0, {"drawn": drawn, "equal": equal}, {})

    records = [
        record("removed", 0, "", (1.0, 1.0, 1.0)),
        record("removed", 1, "astronaut", (0.0, 1.0, 0.9)),
        record("removed", 2, "photo", (0.5, 0.0, 0.8)),
        record("removed", 3, "cat", (0.1, 0.0, 0.1), number=0),
        record("back", 2, "astronaut", (1.0, 0.05, 0.9)),
        record("back", 2, "photo", (0.9, 1.0, 0.9), equal=True),
        record("last", 3, "cat", (0, 0, 0), equal=True),
    ]
    page = chain.page({str(place): each for place, each in enumerate(records)}, tmp_path)
    assert (
        "| 1. astronaut | 100 | **0** | **50** | **10*** |" in page and "| 3. cat | 100 | 90 | 80 | **10*** |" in page
    )
    assert "came back: astronaut (from 0 to 50 %, after photo)." in page
    assert "cat lost most of this, 20 points" in page and "So far the first 3 of 10 were measured" in page
    assert "| astronaut | 100 | 50 → 100 | 0 → 5 | 80 → 90 | no |" in page
    assert "| photo | 100 | 0 → 100 | 50 → 90 | 80 → 90 | yes |" in page
    assert "in 1 of 2 cases. Not so: photo." in page, "the astronaut returned with it"
    assert "the weights are those before its removal" in page
    part = chain.page({str(place): each for place, each in enumerate(records[:2])}, tmp_path)
    assert "Taken back" not in part and "None came back" in part
    assert "| photo | 100 | 100 |" in part and "| cat | 100 | 90 |" in part, "those that stay have a row too"


def test_what_runs_share_is_told_apart_by_all_that_decides_it():
    """Runs of two concepts share neither training images nor the audit of the base model."""
    keys = [
        _key(recipe_of(concept, fields, seed=seed), "concepts", "kind", "seed", "prompts", "samples")
        for concept, fields, seed in (
            ("cat", {}, 0), ("horse", {}, 0), ("pop art", {}, 0), ("cat", {}, 1), ("cat", {"prompts": {"n": 7}}, 0),
            ("cat", {"samples": {"guidance_scale": 1.0}}, 0),
        )
    ]  # fmt: skip
    assert len({*keys}) == len(keys)
    assert _key(recipe_of("cat"), "concepts") == _key(recipe_of("cat", seed=3), "concepts")
    with pytest.raises(AttributeError):
        _key(recipe_of("cat"), "colour")
