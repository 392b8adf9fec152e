"""Prompt files as editors and spreadsheets write them, and concepts as people spell them in prompts."""

import codecs
import json

import pytest
from turpentine.pipeline.prompts import EvaluationPrompt, PromptSet, load_prompts
from turpentine.pipeline.support.errors import UserError

PAIRS = [(f"a cat on a {thing}", f"a dog on a {thing}") for thing in ("mat", "lawn", "sofa", "roof")]


def table(*rows: str, header: str = "forget,retain", end: str = "\n") -> str:
    return end.join([header, *rows, ""])


def written(folder, name: str, content: str | bytes):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


PLAIN = [f"{forget},{retain}" for forget, retain in PAIRS]
ODD = ('a ""cat"", asleep\non a mat', 'a ""dog"", asleep\non a mat')
ODD_PAIR = ('a "cat", asleep on a mat', 'a "dog", asleep on a mat')
EMOJI_PAIR = ("the cat 🐈‍⬛ naps", "the dog 🐕 naps")


@pytest.mark.parametrize(
    ("content", "pairs"),
    [
        (table(*PLAIN), PAIRS),
        (table(*PLAIN).rstrip("\n"), PAIRS),
        ("\ufeff" + table(*PLAIN), PAIRS),
        (table(*PLAIN, end="\r\n"), PAIRS),
        ("\ufeff" + table(*PLAIN, end="\r\n"), PAIRS),
        (table(*PLAIN, header="Forget,RETAIN"), PAIRS),
        (table(*PLAIN, header=" forget , retain "), PAIRS),
        (table(*(f'"{forget}","{retain}"' for forget, retain in PAIRS)), PAIRS),
        (table(*PLAIN, f'"{ODD[0]}","{ODD[1]}"'), [*PAIRS, ODD_PAIR]),
        (table(*PLAIN, f'"{ODD[0]}","{ODD[1]}"', end="\r\n"), [*PAIRS, ODD_PAIR]),
        (table(*PLAIN, ",".join(EMOJI_PAIR)), [*PAIRS, EMOJI_PAIR]),
    ],
    ids=["plain", "no last end", "mark", "windows", "excel", "capitals", "blanks", "quotes", "lines in cells",
         "lines in cells, windows", "emoji"],
)  # fmt: skip
def test_tables_of_pairs(content, pairs, tmp_path):
    made = PromptSet.load(written(tmp_path, "own.csv", content), "cat")
    assert [(row.forget, row.retain) for row in (*made.train, *made.test)] == pairs
    assert made.warnings == ()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("e.csv", "\ufeffprompt,seed\nx,7\n", [("x", 7, None)]),
        ("e.csv", "prompt,seed\r\nx,7\r\ny,8\r\n", [("x", 7, None), ("y", 8, None)]),
        ("e.csv", "Prompt,SEED,Guidance_Scale\nx,7,5\n", [("x", 7, 5.0)]),
        ("e.csv", "Prompt,Evaluation_Seed,SD_Guidance_Scale\nx,7,5\n", [("x", 7, 5.0)]),
        ("e.csv", "prompt,seed\nx,7.0\ny,4294967295.0\nz,\n", [("x", 7, None), ("y", 2**32 - 1, None), ("z",)]),
        ("e.csv", 'prompt,seed\n"a ""red"" hat,\non a mat",7\n', [('a "red" hat, on a mat', 7, None)]),
        ("e.csv", "prompt,seed\n🐈‍⬛ und ü 日本,7\n", [("🐈‍⬛ und ü 日本", 7, None)]),
        ("e.json", json.dumps([{"Prompt": "🐈 x", "evaluation_seed": 7.0, "guidance_scale": 5}]), [("🐈 x", 7, 5.0)]),
        ("e.json", "\ufeff" + json.dumps(["x", "y"], indent=2).replace("\n", "\r\n"), [("x",), ("y",)]),
        ("e.txt", "\ufeffx\r\n\r\ny, 🐈\r\n", [("x",), ("y, 🐈",)]),
    ],
)  # fmt: skip
def test_lists_of_prompts(name, content, expected, tmp_path):
    assert load_prompts(written(tmp_path, name, content)) == [
        EvaluationPrompt(**dict(zip(("prompt", "seed", "guidance_scale"), row, strict=False))) for row in expected
    ]


def in_utf16(text: str) -> bytes:
    return codecs.BOM_UTF16_LE + text.encode("utf-16-le")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (in_utf16(table(*PLAIN)), "UTF-8"),
        (table(*PLAIN).encode("utf-16-be"), ""),
        (table("a cat in a café,a dog in a café", *PLAIN).encode("latin-1"), "UTF-8"),
        (table(*PLAIN).replace(",", ";"), "forget;retain"),
        (table(*PLAIN).replace(",", "\t"), "forget"),
        (table(*PLAIN[1:], header=PLAIN[0]), "forget"),
        (table(*PLAIN, "a cat, asleep,a dog, asleep"), "6"),
        (table(*PLAIN, "a cat"), "6"),
        (table(*PLAIN, ",a dog"), "6"),
    ],
    ids=["utf-16", "utf-16 unmarked", "latin-1", "semicolons", "tabs", "no header", "more cells", "fewer cells",
         "empty cell"],
)  # fmt: skip
def test_tables_of_pairs_that_are_refused(content, named, tmp_path):
    path = written(tmp_path, "own.csv", content)
    with pytest.raises(UserError) as caught:
        PromptSet.load(path, "cat")
    message = str(caught.value)
    assert "own.csv" in message and named in message and "\n" not in message


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("e.csv", in_utf16("prompt,seed\nx,1\n"), "UTF-8"),
        ("e.csv", "prompt,seed\ncafé,1\n".encode("latin-1"), "UTF-8"),
        ("e.txt", "café\n".encode("latin-1"), "UTF-8"),
        ("e.json", in_utf16('["x"]'), "UTF-8"),
        ("e.csv", "prompt;seed\nx;1\n", "prompt;seed"),
        ("e.csv", "prompt\tseed\nx\t1\n", "prompt"),
        ("e.csv", "x,1\ny,2\n", "prompt"),
        ("e.csv", "prompt,seed\nx,1\ny,2,3\n", "line 3"),
        ("e.csv", "prompt,seed\nx,1\ny,-1\n", "-1"),
        ("e.csv", "prompt,evaluation_seed\nx,-7.0\n", "-7"),
        ("e.json", '[{"prompt": "x", "seed": -3}]', "-3"),
        ("e.csv", 'prompt,seed\nx,"3,016"\n', "3,016"),
        ("e.csv", "prompt,seed\nx,99999999999999999999\n", "99999999999999999999"),
        ("e.csv", "prompt,seed\nx,0x10\n", "0x10"),
    ],
)
def test_lists_of_prompts_that_are_refused(name, content, named, tmp_path):
    with pytest.raises(UserError) as caught:
        load_prompts(written(tmp_path, name, content))
    message = str(caught.value)
    assert name in message and named in message and "\n" not in message


@pytest.mark.parametrize(
    ("concept", "kind", "prompt"),
    [
        ("cat", "object", "two CATS on a sofa"), ("cat", "object", "a Cat"), ("cat", "object", "a cat-like shape"),
        ("cat", "object", "the cat's tail"), ("cat", "object", "the cat\u2019s tail"),
        ("cat", "object", "ink of ＣＡＴ"), ("cat", "object", "one (cat:1.3), sharp"), ("cat", "object", "((cat))"),
        ("cat", "object", "[[cat]]"), ("cat", "object", "{cat}"), ("cat", "object", "dog,cat,bird"),
        ("cat", "object", "\u201ccat\u201d, a label"), ("cat", "object", "a cat."),
        ("van gogh", "style", "stars by (van gogh:1.3)"), ("van gogh", "style", "stars by [[Van  Gogh]]"),
        ("van gogh", "style", "VAN GOGH\u2019S stars"), ("Van  Gogh", "style", "stars by van gogh"),
        ("Dalí", "style", "clocks by dali"), ("Dalí", "style", "clocks by DALI\u0301"),
        ("dali", "style", "clocks by Dalí"), ("dali", "style", "clocks by Dali\u0301"),
        ("ＣＡＴ", "object", "a cat"),
    ],
)  # fmt: skip
def test_a_concept_is_seen_however_it_is_written(concept, kind, prompt, tmp_path):
    content = table(*(f'"stars of {concept} {n}","stars of gold {n}"' for n in range(3)), f'"a {concept}","{prompt}"')
    path = written(tmp_path, "own.csv", content)
    with pytest.raises(UserError) as caught:
        PromptSet.load(path, concept, kind)
    assert " ".join(prompt.split()) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("concept", "kind", "prompt"),
    [
        ("cat", "object", "a category of letters, concatenated"), ("cat", "object", "scattered catkins"),
        ("cat", "object", "a catalogue of locations"), ("art", "object", "a party on a cart"),
        ("gun", "object", "a gunfight at noon"), ("gun", "object", "he has begun"), ("ant", "object", "a giant plant"),
        ("rat", "object", "a rather grateful pirate"), ("van gogh", "style", "a van near Goghville"),
        ("Dalí", "style", "dalian dahlias"), ("ape", "object", "a paper landscape in shapes"),
    ],
)  # fmt: skip
def test_a_word_is_not_taken_for_the_concept_that_it_contains(concept, kind, prompt, tmp_path):
    content = table(*(f'"stars of {concept} {n}","stars of gold {n}"' for n in range(3)), f'"a {concept}","{prompt}"')
    made = PromptSet.load(written(tmp_path, "own.csv", content), concept, kind)
    assert not made.names_concept(prompt)
    assert prompt in {row.retain for row in (*made.train, *made.test)}
