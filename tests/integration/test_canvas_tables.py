"""Tables on tiny-canvas, end to end with two steps and a few pictures: measured, stopped, continued, shared, shown."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import turpentine
from PIL import Image
from turpentine.benchmarks.bench import bench
from turpentine.benchmarks.canvas import GRACEFUL, PICTURED, PICTURES, rows, settings_of
from turpentine.benchmarks.store import Store
from turpentine.benchmarks.table import Cell, Options, Record
from turpentine.benchmarks.tables import canvas, concepts, grids, sweeps, tradeoff
from turpentine.pipeline.methods import names
from turpentine.pipeline.schema.defaults import defaults_for
from turpentine.pipeline.support.errors import Cancelled
from turpentine.pipeline.support.progress import Silent

from ..support.stopping import StopAfter2, StopWhen

pytest.importorskip("open_clip")
pytest.importorskip("nudenet")

QUICK = Options(quick=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The table `data`, stopped after two cells and continued; gives its folder and the cells at the stop."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("tables")
        patch.chdir(folder)
        with pytest.raises(Cancelled):
            bench(["data"], QUICK, StopAfter2(), folder, folder)
        stopped = json.loads((folder / "canvas.json").read_text())["cells"]
        bench(["data"], QUICK, Silent(), folder, folder)
        yield folder, stopped


def cells_in(folder):
    return json.loads((folder / "canvas.json").read_text())["cells"]


def test_a_killed_table_goes_on(measured):
    folder, stopped = measured
    cells = cells_in(folder)
    assert len(stopped) == 2 and len(cells) == 5
    assert {key: cells[key] for key in stopped} == stopped, "measured once, seconds and all"
    trained = cells["rgd/astronaut/seed 0"]["figures"]
    assert trained["seconds"] > 0 and trained["peak_memory"] > 10e6 and len(trained["violations"]) == 2
    assert "peak_memory" not in cells["none/astronaut/seed 0"]["figures"]


def test_page_of_data(measured):
    page = (measured[0] / "data.md").read_text()
    assert "| RG |" in page and "0.320 (0.032)" in page, "the paper's Table 4"
    assert "| 4 pairs |" in page and "| 8 pairs |" in page and "| 12 pairs |" in page
    assert "RGD keeps more of D_r,test than RG for" in page and "claims" in page and "quick run" in page


def test_tables_share_cells_and_grids_show_them(measured, monkeypatch):
    folder, _ = measured
    monkeypatch.chdir(folder)
    few = {row: rows()[row] for row in ("rg", "rgd")}
    monkeypatch.setattr(grids, "rows", lambda: few)
    monkeypatch.setattr(concepts, "rows", lambda: few)
    before = cells_in(folder)
    bench(["grids", "concepts"], QUICK, Silent(), folder, folder)
    assert cells_in(folder) == before, "nothing is measured twice"
    with Image.open(folder / "grid-astronaut.jpg") as sheet:
        assert sheet.format == "JPEG" and sheet.width >= 3 * 64 and sheet.height >= 2 * PICTURED * 64
    assert "- F1: " in (folder / "grids.md").read_text()
    page = (folder / "concepts.md").read_text()
    assert "| RGD |" in page and "0.350 (0.002)" in page and "FACE_FEMALE" in page and "raises L_f / L_r" in page
    assert (folder / "detections.svg").read_text().count("<svg") == 1


def test_a_grid_measures_again_what_lost_its_picture(measured, monkeypatch):
    folder, _ = measured
    monkeypatch.chdir(folder)
    name = cells_in(folder)["none/astronaut/seed 0"]["figures"]["picture"]
    (PICTURES / name).unlink()
    monkeypatch.setattr(grids, "rows", dict)
    (one,) = grids.cells(QUICK)
    store = Store(folder / "canvas.json")
    assert not store.has(one)
    store.measure(one, Silent())
    assert store.has(one) and (PICTURES / name).exists()


def test_tradeoff_update_canvas_and_sweeps(measured, monkeypatch):
    folder, _ = measured
    monkeypatch.chdir(folder)
    for table in (tradeoff, canvas):
        monkeypatch.setattr(table, "methods", lambda: ["rgd"])
    monkeypatch.setattr(sweeps, "SWEEPS", {"tiny-canvas": {"rgd": {"method.retain_weight": (2, 5)}}})
    bench(["tradeoff", "update", "canvas", "sweeps"], QUICK, Silent(), folder, folder)
    assert "Pareto front" in (folder / "tradeoff.md").read_text() and (folder / "tradeoff.svg").exists()
    assert "conflict in" in (folder / "update.md").read_text() and (folder / "update.svg").exists()
    page = (folder / "canvas.md").read_text()
    assert "| RGD |" in page and "RGD's UA is the highest: yes" in page and (folder / "canvas.svg").exists()
    assert (
        "| RGD: retain_weight 2 |" in (folder / "sweeps.md").read_text()
        and (folder / "sweeps-tiny-canvas.svg").exists()
    )


def test_transformer(measured, monkeypatch):
    folder, _ = measured
    monkeypatch.chdir(folder)
    bench(["transformer"], QUICK, Silent(), folder, folder)
    page = (folder / "transformer.md").read_text()
    assert "| tiny-canvas-dit |" in page and "| 187 | 0.364 | 0.371 |" in page and "0.088 (0.283)" in page
    found = {key: record for key, record in cells_in(folder).items() if "/transformer/" in key}
    assert {record["settings"]["model"] for record in found.values()} == {"tiny-canvas-dit"} and len(found) == 4
    assert found["rgd/astronaut/transformer/seed 0"]["figures"]["seconds"] > 0


def test_rows_come_from_the_registry_and_settings_from_the_shipped_recipes():
    assert set(names()) <= set(rows()) and {"rgd, metric adam", "rgd, guard"} <= set(rows()) | {"rgd"}
    assert {cell.labels["row"] for cell in canvas.cells(Options())} == {"none", *names()}
    assert settings_of("rgd", "cat", 0, Options())["method"]["forget"] == "ascend", "the paper's, not the default"
    for method in names():
        settings = settings_of(GRACEFUL if method == "rgd" else method, "pop art", 3, Options())
        assert settings["seed"] == 3 and settings["kind"] == "style"
        for section, fields in defaults_for("tiny-canvas", method).items():
            for name, value in fields.items() if isinstance(fields, dict) else ():
                assert settings[section][name] == value, (method, section, name)


def test_a_missing_file_has_a_cell_measured_again(tmp_path):
    calls = []
    one = Cell("a", {}, 0, {}, lambda progress: calls.append(1) or {}, files=(tmp_path / "picture.png",))
    store = Store(tmp_path / "t.json")
    store.measure(one, Silent())
    store.measure(one, Silent())
    (tmp_path / "picture.png").write_bytes(b"")
    store.measure(one, Silent())
    assert len(calls) == 2


def test_a_cell_that_differs_by_its_tag_alone_is_not_measured_again(tmp_path):
    calls = []

    def one(key, tag, value=1, row="a"):
        labels = {"row": row, "tag": tag}
        return Cell(key, labels, 0, {"x": value}, lambda progress: calls.append(key) or {"UA": len(calls)})

    store = Store(tmp_path / "t.json")
    first = store.measure(one("sweep", "x 1"), Silent())
    again = Store(tmp_path / "t.json").measure(one("shipped", ""), Silent())
    assert calls == ["sweep"] and again.figures == first.figures and again.labels["tag"] == ""
    store.measure(one("other value", "", value=2), Silent())
    store.measure(one("other row", "", row="b"), Silent())
    assert calls == ["sweep", "other value", "other row"]


def script(name, *words):
    path = Path(turpentine.__file__).parent / "benchmarks" / name
    return subprocess.run([sys.executable, path, *words], check=True, capture_output=True, text=True).stdout


def sweep_record(tag, scores, alignment):
    """A cell of a sweep over rg's forget limit."""
    labels = {"row": "rg", "tag": tag, "concept": "cat"}
    one = next(cell for cell in sweeps.cells(Options()) if labels == cell.labels)
    figures = dict(zip(("UA", "IRA", "CRA"), scores, strict=True)) | {"retain_test": alignment}
    return Record(dict(one.labels), 0, 1.0, figures, dict(one.settings))


def test_a_sweep_chooses_by_the_accuracies_then_by_alignment(monkeypatch):
    monkeypatch.setattr(sweeps, "SWEEPS", {"tiny-canvas": {"rg": {"method.forget_limit": (1, 2, 4)}}})
    scores = {"forget_limit 1": (1, 0.5, 0.6), "forget_limit 2": (0.6, 1, 0.5), "forget_limit 4": (0.5, 0.5, 0.5)}
    records = [sweep_record(tag, row, 0.7 + 0.01 * i) for i, (tag, row) in enumerate(scores.items())]
    assert sweeps.best(sweeps.points(records, "rg")) == "forget_limit 2", "equal means: the more alignment"
    assert sweeps.shipped(records[1:2]) and not sweeps.shipped(records[:1])
    told = "Every recipe has the best value. No best value is at an end of what was tried."
    assert sweeps.verdict("tiny-canvas", records) == told
    records[2].figures["UA"] = 2.0
    told = "Recipes with another value: RG (forget_limit 4 is best). At an end of what was tried: RG's forget_limit 4."
    assert sweeps.verdict("tiny-canvas", records) == told


def test_both_ways_of_making_data_are_measured():
    found = json.loads(script("data_making.py", "--quick"))
    for name in ("ours", "fewer_steps"):
        assert found[name]["faster"] > 0 and {"UA", "IRA"} <= set(found[name]) & set(found["reference"])


def test_a_chain_is_measured_and_goes_on(tmp_path, monkeypatch):
    """Three removals, two of them taken back; a step that is there is not made again."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Cancelled):
        bench(
            ["chain"],
            QUICK,
            StopWhen(lambda stage, told: stage == "table chain" and len(told) == 2),
            tmp_path,
            tmp_path,
        )
    runs = sorted(Path("runs/bench-chain").iterdir())
    made = {run: (run / "results.json").stat().st_mtime_ns for run in runs if (run / "results.json").exists()}
    (page,) = bench(["chain"], QUICK, Silent(), tmp_path, tmp_path)
    assert made and all((run / "results.json").stat().st_mtime_ns == when for run, when in made.items())
    assert len(list(Path("runs/bench-chain").iterdir())) == 3
    figures = {key: cell["figures"] for key, cell in json.loads((tmp_path / "chain.json").read_text())["cells"].items()}
    assert figures["back/02 neon/seed 0"]["equal"] and figures["last/03 cat/seed 0"]["equal"]
    assert not figures["back/02 astronaut/seed 0"]["equal"]
    assert figures["back/02 astronaut/seed 0"]["still_removed"] == ["neon"]
    assert "| neon |" in page.read_text() and "quick run" in page.read_text()
