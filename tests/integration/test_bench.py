"""`turpentine bench`: cells that are kept, resumed and shown."""

import json

import pytest
from turpentine.benchmarks import TABLES
from turpentine.benchmarks.bench import bench, load_table
from turpentine.benchmarks.digits import methods
from turpentine.benchmarks.show import markdown, orderings
from turpentine.benchmarks.store import Store
from turpentine.benchmarks.table import Cell, Options, Table
from turpentine.benchmarks.tables import classes, diversity, knobs
from turpentine.pipeline.commands.main import main
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.support.errors import Cancelled, UserError
from turpentine.pipeline.support.progress import Silent
from turpentine.pipeline.support.version import __version__

from ..support.stopping import StopAfter2


def counting(key, calls, settings=None):
    return Cell(key, {"method": key}, 0, settings or {}, lambda progress: calls.append(key) or {"UA": len(calls)})


def test_a_measured_cell_is_kept_and_one_with_other_settings_is_not(tmp_path):
    calls = []
    Store(tmp_path / "t.json").measure(counting("a", calls, {"steps": (1, 2)}), Silent())
    store = Store(tmp_path / "t.json")
    assert store.measure(counting("a", calls, {"steps": (1, 2)}), Silent()).figures == {"UA": 1}
    store.measure(counting("a", calls, {"steps": (1, 3)}), Silent())
    assert calls == ["a", "a"]


def test_a_setting_that_came_since_measures_anew_where_it_is_on(tmp_path):
    calls = []
    for settings in ({"steps": 1}, {"steps": 1, "new": None}, {"steps": 1, "new": 2.0}):
        Store(tmp_path / "t.json").measure(counting("a", calls, settings), Silent())
    assert calls == ["a", "a"]


def test_a_page_says_of_which_version_its_figures_are(tmp_path, monkeypatch):
    names = ["a", "b", "c"]
    table = Table("T", lambda options: [counting(name, []) for name in names], lambda records, folder: "")
    monkeypatch.setattr("turpentine.benchmarks.bench.load_table", lambda name: table)
    folders = {"results": tmp_path, "pages": tmp_path}
    bench(["classes"], Options(), Silent(), **folders)
    file = tmp_path / "classes.json"
    assert {cell["version"] for cell in json.loads(file.read_text())["cells"].values()} == {__version__}
    old = json.loads(file.read_text())
    del old["cells"]["a"]["version"]
    file.write_text(json.dumps(old))
    (page,) = bench(["classes"], Options(), Silent(), **folders)
    said = "1 cell measured before cells named their version; what came later is a dash."
    assert f"{said} 2 cells measured by version {__version__}." in page.read_text()


def test_two_runs_fill_one_store(tmp_path):
    one, other = (Store(tmp_path / "t.json") for _ in range(2))
    for store, key in ((one, "a"), (other, "b"), (one, "c")):
        store.measure(counting(key, []), Silent())
    assert sorted(Store(tmp_path / "t.json").records) == sorted(one.records) == ["a", "b", "c"]


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    calls = []
    names = ["a", "b", "c", "d"]
    table = Table(
        "T", lambda options: [counting(name, calls) for name in names], lambda records, folder: str([*records])
    )
    monkeypatch.setattr("turpentine.benchmarks.bench.load_table", lambda name: table)

    folders = {"results": tmp_path, "pages": tmp_path}
    with pytest.raises(Cancelled):
        bench(["classes"], Options(), StopAfter2(), **folders)
    assert calls == ["a", "b"] and not (tmp_path / "classes.md").exists()
    (page,) = bench(["classes"], Options(), Silent(), **folders)
    assert calls == names
    assert "['a', 'b', 'c', 'd']" in page.read_text() and "4 cells" in page.read_text()
    assert json.loads((tmp_path / "classes.json").read_text())["cells"]["d"]["figures"] == {"UA": 4}


def test_a_file_that_is_no_store(tmp_path):
    (tmp_path / "t.json").write_text("[1]")
    with pytest.raises(UserError, match="holds no cells of a table"):
        Store(tmp_path / "t.json")


def test_orderings_are_computed():
    paper = {"A": {"UA": 1.0, "RA": 0.7}, "B": {"UA": 1.0, "RA": 0.8}, "C": {"UA": 0.5, "RA": 0.9}}
    ours = {"A": {"UA": 0.9, "RA": 0.75}, "B": {"UA": 0.8, "RA": 0.7}, "C": {"UA": 0.1, "RA": 0.95}}
    said = orderings(paper, ours)
    assert "holds here in 4 of 5 pairs" in said and "RA of A below B (here 0.750 and 0.700)" in said
    assert orderings(paper, paper) == "The paper's ordering holds here in all 5 pairs of rows."
    assert "no pair" in orderings(paper, {"A": ours["A"]})


def test_markdown():
    assert markdown(["", "UA"], [["RGD", "1.0"]]) == "|  | UA |\n|---|---:|\n| RGD | 1.0 |"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_cells_with_keys_of_their_own(name):
    for options in (Options(), Options(quick=True), Options(seeds=(0, 1))):
        cells = load_table(name).cells(options)
        assert len({cell.key for cell in cells}) == len(cells) > 0


def test_the_tables_cover_what_the_paper_did():
    assert len(classes.cells(Options())) == 10 * len(methods())
    cells = diversity.cells(Options())
    sizes = {cell.settings["data"]["retain_per_class"] for cell in cells}
    assert len(cells) == 18 and len(sizes) == 1, "both cases have as many images"


def test_shipped_recipes_are_the_points_that_were_chosen():
    """`pipeline/schema/recipes/digits` keeps what the committed grid of `knobs` found best."""
    from turpentine.benchmarks.bench import RESULTS

    records = Store(RESULTS / "knobs.json").records
    for method in methods():
        chosen = knobs.best(records, method).settings
        shipped = build_recipe({"model": "digits", "concept": "3", "method": {"name": method}}).model_dump(mode="json")
        for section in ("method", "training"):
            kept = {key: shipped[section][key] for key in chosen[section]}  # options that came later aside
            assert kept == chosen[section], method


def test_quick_table_end_to_end(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    pytest.importorskip("torchmetrics")
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "classes", "similarity", "--quick", "--results", "cells", "--pages", "pages"]) == 0
    page = (tmp_path / "pages" / "classes.md").read_text()
    assert "| RGD |" in page and "0.771 ± 0.016" in page and "The paper's claims" in page and "quick run" in page
    assert (tmp_path / "pages" / "classes.svg").read_text().count("<svg") == 1
    assert "among the two most similar" in (tmp_path / "pages" / "similarity.md").read_text()


def test_unknown_table(capsys):
    assert main(["bench", "nonsense"]) == 2
    assert "table must be 'all' or one of" in " ".join(capsys.readouterr().err.split())
