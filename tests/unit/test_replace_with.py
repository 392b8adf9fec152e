"""`replace_with` from the recipe to the record: sets, files, guards, classes, warnings."""

import json
from contextlib import nullcontext

import pytest
import torch
from turpentine.pipeline.data.datasets import LabelledImages
from turpentine.pipeline.data.samples import SampleSet
from turpentine.pipeline.prompts import PromptPair, PromptSet
from turpentine.pipeline.run.preflight import preflight
from turpentine.pipeline.run.prompts import prompts_of
from turpentine.pipeline.run.record import RunRecord, prompts_sha256
from turpentine.pipeline.schema.defaults import build_recipe
from turpentine.pipeline.schema.idle import idle_options
from turpentine.pipeline.schema.recipe import DataSection
from turpentine.pipeline.schema.resolve import resolve
from turpentine.pipeline.support.errors import UserError
from turpentine.ui.steps.prompts import edited, rows_of

ROWS = [(f"a cat, number {i}", f"a fox, number {i}") for i in range(8)]


def recipe_of(concept="cat", model="a/b", method="salun", **prompts):
    more = {key: prompts.pop(key) for key in ("kind", "attribute_of", "audits") if key in prompts}
    chosen = {"concept": concept, "model": model, "method": {"name": method, "data": "diverse"}}
    return build_recipe({**chosen, **more, "prompts": prompts})


def read(file, concept="cat", **prompts):
    return prompts_of(resolve(recipe_of(concept, file=str(file), **prompts)))


def write(path, rows=ROWS, header="forget,retain"):
    if path.suffix == ".csv":
        path.write_text("\n".join([header, *(",".join(f'"{cell}"' for cell in row) for row in rows)]), encoding="utf-8")
    elif path.suffix == ".txt":
        path.write_text("\n".join("\t".join(filter(None, row)) for row in rows), encoding="utf-8")
    else:
        pairs = [dict(zip(("forget", "retain", "anchor"), filter(None, row), strict=False)) for row in rows]
        made = {
            "concept": "cat",
            "synonyms": ["cat", "kitten"],
            "source": "file",
            "train": pairs[:-1],
            "test": pairs[-1:],
        }
        path.write_text(json.dumps(made), encoding="utf-8")
    return path


# what is written and read -----------------------------------------------------------------------------


def test_sets_without_anchors_are_written_as_before(tmp_path):
    made = PromptSet.build("cat", n=4, n_test=2)
    assert "anchor" not in made.model_dump_json() and "replace_with" not in made.model_dump_json()
    for name, first in (("p.csv", "forget,retain,split\n"), ("p.txt", "")):
        made.save(tmp_path / name)
        text = (tmp_path / name).read_text()
        assert text.startswith(first) and all(line.count("\t") < 2 for line in text.splitlines())


@pytest.mark.parametrize("suffix", ["json", "csv", "txt"])
def test_anchors_are_kept(tmp_path, suffix):
    made = PromptSet.build("cat", n=8, n_test=3, replace_with="a dog", keep_forgotten=["horse"])
    made.save(tmp_path / f"p.{suffix}")
    again = PromptSet.load(tmp_path / f"p.{suffix}", "cat", n_test=3 if suffix == "txt" else None)
    assert again.train == made.train and again.test == made.test
    if suffix == "json":
        assert again == made


@pytest.mark.parametrize("name", ["p.csv", "p.txt", "p.json"])
@pytest.mark.parametrize("model", ["a/b", "tiny-canvas"])
@pytest.mark.parametrize(("text", "expected"), [("a horse", "a horse"), ("rocket", "a rocket")])
def test_files_are_made_by_the_same_rule(tmp_path, name, model, text, expected):
    made = read(write(tmp_path / name), model=model, replace_with=text)
    assert made.anchor_train == [f"{expected}, number {i}" for i in range(7)] and made.warnings == ()
    assert made.retain_train == [row[1] for row in ROWS[:7]] and made.replace_with == text


@pytest.mark.parametrize("name", ["p.csv", "p.txt", "p.json"])
def test_what_a_file_says_wins(tmp_path, name):
    rows = [(*row, "" if number % 2 else f"a bird {number}") for number, row in enumerate(ROWS)]
    file = write(tmp_path / name, rows, "Forget,Retain,Anchor")
    plain, made = read(file), read(file, replace_with="a dog")
    assert plain.anchor_train == ["a bird 0", "a fox, number 1", *plain.anchor_train[2:]] and plain.own_anchors
    assert made.anchor_train == [f"a bird {i}" if i % 2 == 0 else f"a dog, number {i}" for i in range(7)]
    all_of_them = [(*row, f"a bird {number}") for number, row in enumerate(ROWS)]
    whole = write(tmp_path / name, all_of_them, "forget,retain,anchor")
    idle = read(whole, replace_with="a dog")
    assert idle.warnings == ("replace_with 'a dog' has no effect: every row says what is drawn instead",)
    assert plain.drawn_instead is idle.drawn_instead is idle.replace_with is None and "instead:" not in idle.preview()
    assert made.drawn_instead == "a dog, or what a pair says itself" and made.drawn_instead in made.preview()
    made.save(tmp_path / "made.json")
    assert read(tmp_path / "made.json").drawn_instead == made.drawn_instead


def test_what_is_drawn_instead_is_not_said_of_rows_without_the_concept(tmp_path):
    made = read(write(tmp_path / "p.csv", [*ROWS[:7], ("a moggy", "a fox")]), replace_with="a dog")
    assert made.drawn_instead == "a dog, or what a pair says itself"
    none = read(write(tmp_path / "q.csv", [(f"a moggy {i}", f"a fox {i}") for i in range(4)]), replace_with="a dog")
    assert none.drawn_instead is None and "with the retain prompt drawn instead" in none.warnings[-1]


def test_anchors_that_are_written_into_the_apps_table_are_told():
    made = PromptSet.build("cat", n=4, n_test=2, replace_with="a dog")
    rows = rows_of(made)
    assert edited(made, rows).drawn_instead == edited(made, rows[1:]).drawn_instead == "a dog"
    rows[0][3] = "a bird"
    assert edited(made, rows).drawn_instead == "a dog, or what a pair says itself"
    plain = PromptSet.build("cat", n=4, n_test=2)
    assert edited(plain, [[*row[:3], "a bird"] for row in rows_of(plain)]).drawn_instead is None


def test_a_set_that_was_saved_with_another_text_is_refused(tmp_path):
    PromptSet.build("cat", n=4, n_test=2, replace_with="a dog").save(tmp_path / "p.json")
    assert read(tmp_path / "p.json", replace_with="A Dog").replace_with == "a dog"
    assert read(tmp_path / "p.json").replace_with == "a dog"
    with pytest.raises(UserError, match=r"has replace_with 'a dog', got 'a fox'\. Leave it out"):
        read(tmp_path / "p.json", replace_with="a fox")


def test_a_row_that_does_not_name_the_concept_keeps_its_retain_prompt(tmp_path):
    made = read(write(tmp_path / "p.csv", [*ROWS[:4], ("a moggy", "a fox"), *ROWS[4:]]), replace_with="a dog")
    assert made.train[4].anchor is None and made.anchor_train[4] == "a fox"
    assert made.warnings[1:] == (
        "1 forget prompt without 'cat', with the retain prompt drawn instead (the first in row 5)",
    )


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        ("two kittens", "train row 1: expected an anchor without what is removed, got 'two kittens', which says 'kitt"),
        ("a pony", "train row 1: expected an anchor without what must stay forgotten, got 'a pony', which says 'pony'"),
        ("A moggy", "train row 1: expected an anchor that differs from its forget prompt"),
    ],
)
@pytest.mark.parametrize("name", ["p.csv", "p.txt", "p.json"])
def test_anchors_of_a_file_are_checked(tmp_path, name, anchor, message):
    file = write(tmp_path / name, [("a moggy", "a fox", anchor), *ROWS], "forget,retain,anchor")
    with pytest.raises(UserError, match=message):
        read(file, keep_forgotten=["horse"])


def test_an_anchor_may_say_what_the_forget_prompt_says(tmp_path):
    rows = [("a cat on a horse", "a fox on a horse"), *ROWS]
    made = read(write(tmp_path / "p.csv", rows), replace_with="a dog", keep_forgotten=["horse"])
    assert made.train[0].anchor == "a dog on a horse"


# guards, attributes, classes --------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "a dog"])
def test_guards_leave_what_is_drawn_instead(text):
    plain = PromptSet.build("cat", n=12, n_test=2, replace_with=text)
    made = PromptSet.build("cat", n=12, n_test=2, replace_with=text, keep_forgotten=["zebra"])
    assert made.anchor_train == plain.anchor_train and made.retain_train != plain.retain_train
    assert made.own_anchors == (text is not None)


@pytest.mark.parametrize("text", [None, "a dog"])
def test_rows_that_guard_a_file_draw_the_same_instead(tmp_path, text):
    made = read(write(tmp_path / "p.csv"), replace_with=text, keep_forgotten=["zebra"])
    assert len(made.train) > 7
    for before, pair in zip(made.train, made.train[1:], strict=False):
        if pair.forget == before.forget:
            assert pair.anchor == before.instead and "zebra" in pair.retain
    made.save(tmp_path / "p.json")
    again = read(tmp_path / "p.json", replace_with="a dog", keep_forgotten=["zebra"])
    assert again.anchor_train == [pair.forget.replace("cat", "dog") for pair in made.train]


def test_an_attribute_gives_way_or_is_left_out():
    options = {"n": 8, "n_test": 2, "attribute_of": "cowboy", "keep_forgotten": ["zebra"]}
    made = PromptSet.build("hat", **options, replace_with="a helmet")
    assert all("cowboy" in text and "helmet" in text and "hat" not in text for text in made.anchor_train)
    left = PromptSet.build("hat", **options, replace_with="nothing")
    assert left.anchor_train == PromptSet.build("hat", n=8, n_test=2, attribute_of="cowboy").retain_train


def test_another_class_is_drawn_instead():
    made = PromptSet.of_classes("3", list("0123"), 4, 2, replace_with="1")
    assert made.anchor_train == ["1"] * 4 and made.retain_train == ["0", "1", "2", "0"]
    for wrong in ("3", "nothing", "one"):
        with pytest.raises(
            UserError, match=r"expected another class to draw instead \(replace_with\), one of \['0', '1', '2'\]"
        ):
            PromptSet.of_classes("3", list("0123"), 4, 2, replace_with=wrong)


# told before the work ---------------------------------------------------------------------------------

IDLE = "prompts.replace_with (--replace-with) has no effect without a method that draws something else instead"


@pytest.mark.parametrize(("method", "told"), [("salun", False), ("rg", True), ("esd-x", True), ("finetune", True)])
def test_methods_that_draw_nothing_instead_say_so(method, told):
    setting = resolve(recipe_of(method=method, replace_with="a dog"))
    assert any(line.startswith(IDLE) for line in idle_options(setting)) == told
    shown = idle_options(setting, ("prompts",), trains=False)
    assert not any(line.startswith(IDLE) for line in shown), "the prompts show it"


@pytest.mark.parametrize("method", ["rg", "salun"])
def test_anchors_of_a_file_without_effect_are_told(tmp_path, method):
    file = write(tmp_path / "p.csv", [(*row, "a bird") for row in ROWS], "forget,retain,anchor")
    recipe = recipe_of(model="tiny-canvas", method=method, file=str(file), audits={"accuracy": False})
    warnings = preflight(resolve(recipe)).warnings
    assert any(warning.startswith("the anchors of the prompts have no effect") for warning in warnings) == (
        method == "rg"
    )


def test_the_record_of_a_run_holds_the_anchors():
    plain, made = (PromptSet.build("cat", n=4, n_test=2, replace_with=text) for text in (None, "a dog"))
    assert prompts_sha256(plain) != prompts_sha256(made)
    before, after = (RunRecord.of(recipe_of(replace_with=text)) for text in ("a dog", "a fox"))
    assert before.sha256 != after.sha256


def test_an_anchor_behind_what_is_read_is_told():
    pairs = [
        PromptPair(forget="a cat here", retain="a dog here", anchor="a fox here"),
        PromptPair(forget="a cat here", retain="a dog here", anchor="a ca fox"),
    ]
    made = PromptSet(concept="cat", synonyms=("cat",), source="file", train=pairs, test=())
    assert made.cut_off(lambda texts: texts) == []
    made = made.model_copy(update={"synonyms": ("ca", "cat"), "train": (pairs[0], pairs[1])})
    assert made.cut_off(lambda texts: [text[:4] for text in texts]) == ["train row 2"]


def test_the_preview_shows_what_is_drawn_instead():
    shown = PromptSet.build("cat", n=4, n_test=2, replace_with="a dog").preview(1)
    assert "drawn instead: a dog" in shown and "\n  instead An unusual dog" in shown


# samples ----------------------------------------------------------------------------------------------


class Drawing:
    """Draws prompts as their number in the order of the alphabet, and counts what it embeds."""

    def __init__(self):
        self.embedded = []

    def sample(self, prompts, *_):
        return torch.zeros(len(prompts), 1, 1, 1)

    def latent_shape(self, image_size):
        return 1, 1, 1

    def drawing(self):
        return nullcontext()

    def encode_prompts(self, prompts):
        self.embedded += prompts
        return {"c": torch.tensor([[float(hash(prompt) % 2**24)] for prompt in prompts], dtype=torch.float64)}


@pytest.mark.parametrize("text", [None, "a dog", "nothing"])
def test_each_prompt_is_embedded_once(text):
    prompts = PromptSet.build("cat", n=70, n_test=1, replace_with=text)
    model = Drawing()
    samples = SampleSet.draw(model, prompts)
    assert len(model.embedded) == len({*prompts.forget_train, *prompts.retain_train, *prompts.anchor_train})
    assert (samples.anchors is None) == (text is None)
    given = samples.anchor_of(torch.arange(70), torch.device("cpu"))["c"].flatten().tolist()
    assert given == [float(hash(prompt) % 2**24) for prompt in prompts.anchor_train]


@pytest.mark.parametrize(
    ("concept", "kind", "world", "expected"),
    [
        ("cat", "object", "open", "dog"),
        ("Dog", "object", "open", "cat"),
        ("dog", "object", "open", "cat"),
        ("Jane Doe", "object", "open", "person"),
        ("zorblax", "object", "open", "dog"),
        ("Van Gogh", "style", "open", "a plain photo"),
        ("pixel art", "style", "open", "a plain photo"),
        ("photo", "style", "open", "a painting"),
        ("nudity", "nudity", "open", "clothed"),
        ("cat + Van Gogh", "object", "open", "dog + a plain photo"),
        ("cat + dog", "object", "open", "car"),
        ("cat", "object", "tiny-canvas", "astronaut"),
        ("astronaut", "object", "tiny-canvas", "cat"),
        ("pop art", "style", "tiny-canvas", "photo"),
        ("photo", "style", "tiny-canvas", "pencil sketch"),
        ("cat + pop art", "object", "tiny-canvas", "astronaut + photo"),
    ],
)
def test_auto_is_one_thing_for_all_pairs(concept, kind, world, expected):
    made = PromptSet.build(concept, kind, n=6, n_test=3, world=world, replace_with="auto")
    assert made.replace_with == expected
    chosen = PromptSet.build(concept, kind, n=6, n_test=3, world=world, replace_with=expected)
    assert made.usual_anchor and made.model_copy(update={"usual_anchor": False}) == chosen
    assert not any(made.names_concept(text) for text in (*made.anchor_train, *made.anchor_test))


@pytest.mark.parametrize(
    ("world", "text", "expected"),
    [
        ("tiny-canvas", "a horse + auto", ("a horse", "photo")),
        ("tiny-canvas", "auto + neon", ("astronaut", "neon")),
        ("open", "auto + auto", ("dog", "a plain photo")),
    ],
)
def test_auto_may_stand_beside_others(world, text, expected, tmp_path):
    made = PromptSet.build("cat + pop art", n=6, n_test=4, world=world, replace_with=text)
    assert made.replace_with == " + ".join(expected) and not made.usual_anchor
    assert made == PromptSet.build("cat + pop art", n=6, n_test=4, world=world, replace_with=made.replace_with)
    plain = PromptSet.build("cat + pop art", n=6, n_test=4, world=world)
    plain.save(tmp_path / "p.json")
    filed = read(tmp_path / "p.json", "cat + pop art", model="tiny-canvas", replace_with=text)
    assert filed.anchor_train == made.anchor_train if world == "tiny-canvas" else filed.own_anchors


def test_what_is_the_same_for_all_is_said_once():
    made = PromptSet.build("cat + horse + rocket", n=6, n_test=3, world="tiny-canvas", replace_with="auto")
    assert made.drawn_instead == "astronaut"
    same = PromptSet.build("cat + horse", n=6, n_test=3, world="tiny-canvas", replace_with="a rocket + a rocket")
    assert same.drawn_instead == "a rocket"


def test_auto_leaves_what_pairs_say_themselves(tmp_path):
    """An attribute is left out, and the rows of a file keep their own retain prompts."""
    hat = PromptSet.build("hat", "object", n=4, n_test=2, attribute_of="cowboy", replace_with="auto")
    assert hat.replace_with is None and hat.anchor_train == hat.retain_train
    file = tmp_path / "own.csv"
    file.write_text("forget,retain\n" + "".join(f"a cat {i},a plate {i}\n" for i in range(9)))
    own = PromptSet.load(file, "cat", replace_with="auto")
    assert own == PromptSet.load(file, "cat") and own.anchor_train == own.retain_train
    saved = tmp_path / "own.json"
    PromptSet.build("cat", n=4, n_test=2, replace_with="a horse").save(saved)
    assert PromptSet.load(saved, replace_with="auto").replace_with == "a horse"


def test_what_nobody_chose_counts_only_where_something_is_drawn_instead(tmp_path):
    usual, own = (
        PromptSet.build("cat", n=8, n_test=2, world="tiny-canvas", replace_with=text, keep_forgotten=["horse"])
        for text in ("auto", "an astronaut")
    )
    assert usual.train == own.train and usual.usual_anchor and not own.usual_anchor
    usual.save(tmp_path / "p.json")
    assert PromptSet.load(tmp_path / "p.json") == usual

    def checked(prompts, method):
        return preflight(resolve(recipe_of(model="tiny-canvas", method=method, audits={"alignment": False})), prompts)

    assert checked(usual, "rgd").prompts == usual and checked(own, "salun").prompts == own
    paired = checked(usual, "salun").prompts
    assert paired.replace_with is None and paired.anchor_test == paired.retain_test, "the default of this method"
    plain = checked(usual, "finetune")
    assert plain.prompts.anchor_test == plain.prompts.retain_test and plain.prompts.replace_with is None
    assert not plain.prompts.own_anchors and not any("anchors" in text for text in plain.warnings)
    assert any("anchors of the prompts have no effect" in text for text in checked(own, "finetune").warnings)


def test_auto_keeps_clear_of_what_must_stay_forgotten():
    made = PromptSet.build("cat", n=8, n_test=2, replace_with="auto", keep_forgotten=["dog"])
    assert made.replace_with == "car"
    tiny = PromptSet.build("cat", n=8, n_test=2, world="tiny-canvas", replace_with="auto", keep_forgotten=["astronaut"])
    assert tiny.replace_with == "coffee"
    assert PromptSet.of_classes("3", ["0", "1", "3"], 2, 1, replace_with="auto").replace_with == "0"


def test_auto_keeps_clear_of_synonyms():
    assert PromptSet.build("zorblax", n=8, n_test=2, replace_with="auto", synonyms=["dog"]).replace_with == "cat"
    own = PromptSet.build("unclad", "nudity", n=8, n_test=2, replace_with="auto", synonyms=["unclothed"])
    assert own.replace_with == "clothed", "a word that only its synonyms explain"


def test_classes_too_have_what_nobody_chose_only_where_something_is_drawn_instead():
    chosen = {"concept": "3", "model": "digits", "prompts": {"replace_with": "auto"}}
    for forget, expected in (("redirect", "0"), ("ascend", None)):
        made = prompts_of(resolve(build_recipe({**chosen, "method": {"name": "rgd", "forget": forget}})))
        assert made.replace_with == expected and {pair.anchor for pair in made.train} == {expected}


@pytest.mark.parametrize(("text", "expected"), [(None, None), ("1", 1.0), ("9", 9.0)])
def test_a_class_is_drawn_instead_of_real_images(text, expected):
    """Also one that the images don't show."""

    class Numbers(Drawing):
        def encode_prompts(self, prompts):
            return {"c": torch.tensor([[float(prompt)] for prompt in prompts])}

    data = LabelledImages(torch.zeros(12, 1, 2, 2), torch.arange(12) % 3, ("0", "1", "2"))
    spec = DataSection(dataset="digits", retain_per_class=2)
    samples = SampleSet.from_images(Numbers(), data, "0", spec, None, replace_with=text)
    given = samples.anchor_of(torch.arange(4), torch.device("cpu"))["c"].flatten()
    partners = samples.retain.conditioning["c"].flatten()[samples.retain.rows]
    assert given.tolist() == (partners.tolist() if expected is None else [expected] * 4)
