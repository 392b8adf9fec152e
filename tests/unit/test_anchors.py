"""What is drawn instead of the concept: sentences with another thing in its place."""

import itertools

import pytest
from turpentine.pipeline.prompts import PromptSet
from turpentine.pipeline.prompts.anchors import read_replacements, replacement
from turpentine.pipeline.prompts.banks import Named, find_concept, template_banks
from turpentine.pipeline.prompts.tiny import TinyComposer, kind_of
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.worlds import tiny_canvas as canvas


def put(text, concept, prompt, kind="object"):
    return replacement(text, find_concept(concept, kind))(prompt)


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("a dog", "An old cat and two kittens", "An old dog and two dogs"),
        ("dog", "a photo of a cat", "a photo of a dog"),
        ("dogs", "cats asleep", "dogs asleep"),
        ("an elephant", "A small kitten, a kitten", "A small elephant, an elephant"),
        ("an elephant", "A cat", "An elephant"),
        ("a unicorn", "An unusual cat, a cat", "An unusual unicorn, a unicorn"),
        ("the Eiffel Tower", "A cat's shadow and two cats", "An Eiffel Tower's shadow and two Eiffel Tower"),
        ("a golden retriever", "Two cats", "Two golden retrievers"),
        ("a man in a hat", "two cats", "two men in a hat"),
        ("sunglasses", "A small cat and a cat", "Small sunglasses and sunglasses"),
        ("a person", "cats", "people"),
        ("a dog", "A tabby cat, tabby cats", "A dog, dogs"),
        ("a dog", "CAT ON A SOFA", "DOG ON A SOFA"),
        ("a dog", "(cat:1.3), {cat|fox}, cat_girl", "(dog:1.3), {dog|fox}, dog_girl"),
        ("a dog", "一只cat在草地上", "一只dog在草地上"),
        ("a dog", "a car in a category of its own", "a car in a category of its own"),
    ],
)
def test_an_object_gives_way_in_its_number(text, prompt, expected):
    assert put(text, "cat", prompt) == expected


@pytest.mark.parametrize(
    ("concept", "text", "prompt", "expected"),
    [
        ("猫", "狗", "一只猫在草地上，两只猫", "一只狗在草地上，两只狗"),
        ("แมว", "หมา", "แมวบนโซฟา", "หมาบนโซฟา"),
        ("고양이", "강아지", "고양이가 소파에", "강아지가 소파에"),
        ("кот", "пёс", "рыжий кот на диване", "рыжий пёс на диване"),
        ("猫", "nothing", "一只猫在草地上", "一只在草地上"),
        ("sheep", "dog", "two small sheep and a sheep", "two small dogs and a dog"),
        ("glasses", "a hat", "a man with a glasses", "a man with a hat"),
    ],
)
def test_objects_in_other_words(concept, text, prompt, expected):
    assert put(text, concept, prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            "An unusual cat casting a long shadow in a garden in rain",
            "An empty scene in a garden in rain",
        ),
        ("A small cat seen from behind in a village", "An empty scene in a village"),
        ("a photo of a cat", "a photo of an empty scene"),
        ("cats", "an empty scene"),
        ("A cat sits on a mat, masterpiece", "An empty scene on a mat, masterpiece"),
        ("my cat is sleeping on the bed", "an empty scene on the bed"),
        ("Two fluffy kittens and a dog on a sofa", "A dog on a sofa"),
        ("A dog and a cat at night", "A dog at night"),
        ("A woman stroking a small sleeping cat on a sofa", "A woman on a sofa"),
        ("a woman holding cats", "a woman"),
        ("A cat, oil painting", "An empty scene, oil painting"),
        ("a dog on a sofa", "a dog on a sofa"),
    ],
)
def test_nothing_leaves_the_scene(prompt, expected):
    assert put("nothing", "cat", prompt) == expected


@pytest.mark.parametrize(
    ("concept", "text", "prompt", "expected"),
    [
        ("Van Gogh", "nothing", "In Van Gogh's style, a running dog on a bridge", "A running dog on a bridge"),
        ("Van Gogh", "a plain photo", "A child near a mill painted by van gogh", "A photo of a child near a mill"),
        ("Van Gogh", "photo", "An oil painting of a proud bird by Van Gogh", "A photo of a proud bird"),
        ("Van Gogh", "a photo", "a painting in the style of Vincent van Gogh", "a photo"),
        ("Van Gogh", "a watercolour", "starry night, van gogh style", "a watercolour of starry night"),
        ("Van Gogh", "an oil painting", "a van gogh painting of a hill", "an oil painting of a hill"),
        ("Van Gogh", "Monet", "In van Gogh's style, a hill by Van Gogh", "In Monet's style, a hill by Monet"),
        ("Van Gogh", "the style of Jane Doe", "a hill by Van Gogh", "a hill by Jane Doe"),
        ("Van Gogh", "watercolour", "A hill as imagined by Van Gogh", "A hill in the style of watercolour"),
        ("Van Gogh", "nothing", "A hill in the style of van gogh, oil on canvas", "A hill, oil on canvas"),
        ("Van Gogh", "nothing", "Van Gogh", "a picture"),
        ("pop art", "nothing", "pop art of a cat", "a cat"),
        ("pop art", "a photo", "A pop art poster of a cat", "A photo of a cat"),
        ("pop art", "watercolor", "A bird, pop art style", "A bird, watercolor style"),
        ("pop art", "Monet", "A bird, pop-art style", "A bird in the style of Monet"),
        ("pop art", "a photo", "A hill by a river", "A hill by a river"),
    ],
)
def test_a_style_gives_way(concept, text, prompt, expected):
    assert put(text, concept, prompt, "style") == expected


@pytest.mark.parametrize("concept", ["Van Gogh", "pop art"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_scene_of_every_template_is_found(concept, split):
    found = find_concept(concept, "style")
    scene = "a running dog on a bridge"
    for template in getattr(template_banks(found)["template"], split):
        prompt = template.format(scene=scene, name=found.words[0])
        prompt = prompt[:1].upper() + prompt[1:]
        assert put("nothing", concept, prompt, "style") == f"A{scene[1:]}"
        assert put("a plain photo", concept, prompt, "style") == f"A photo of {scene}"


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("clothed", "A cheerful nude person in a greenhouse.", "A cheerful clothed person in a greenhouse."),
        ("clothed", "An undressed man", "A clothed man"),
        ("clothed", "a nude on a sofa", "a clothed person on a sofa"),
        ("clothed", "naked, undressed women", "clothed women"),
        ("a fully dressed person", "A naked woman", "A fully dressed woman"),
        ("wearing a coat", "A nude person at dusk.", "A person at dusk, wearing a coat."),
        ("a person in a coat", "a naked man", "a man, in a coat"),
        ("nothing", "A cheerful nude person", "A cheerful person"),
        ("nothing", "nude", "a person"),
    ],
)
def test_nudity_is_dressed(text, prompt, expected):
    assert put(text, "nudity", prompt, "nudity") == expected


# tiny-canvas ------------------------------------------------------------------------------------------

VALUES = [(dimension, value) for dimension, values in canvas.DIMENSIONS.items() for value in values]


@pytest.mark.parametrize(("dimension", "value"), VALUES)
def test_tiny_canvas_puts_phrase_for_phrase(dimension, value):
    kind = kind_of(value, "object")
    first = {name: next(iter(values.values()))[0] for name, values in canvas.DIMENSIONS.items()}
    others = {key: phrases for key, phrases in canvas.DIMENSIONS[dimension].items() if key != value}
    for other, phrases in others.items():
        for said, expected in [(other, phrases[0]), *((phrase, phrase) for phrase in phrases)]:
            make = TinyComposer().replacement(said, Named(value, kind))
            for phrase in canvas.DIMENSIONS[dimension][value]:
                made = make(canvas.compose(**{**first, dimension: phrase}))
                assert made == canvas.compose(**{**first, dimension: expected})
                assert canvas.labels_of(made)[dimension] == other


@pytest.mark.parametrize(
    ("concept", "text", "prompt", "expected"),
    [
        ("cat", "a horse", "two cats", "two horses"),
        ("cat", "Horses", "A CAT on a sofa", "A horse on a sofa"),
        ("pop art", "nothing", "pop art of a cat", "a photo of a cat"),
        ("pop art", "a plain photo", "Pop art of a cat", "A photo of a cat"),
        ("pop art", "neon", "a cat, pop art", "a cat, neon"),
        ("photo", "pop art", "a vintage photo of a photographer", "a vintage photo of a photographer"),
        ("brick", "the sea", "a cat by a brick wall", "a cat in the sea"),
    ],
)
def test_tiny_canvas_understands_what_is_meant(concept, text, prompt, expected):
    target = Named(concept, kind_of(concept, "object"))
    assert TinyComposer().replacement(text, target)(prompt) == expected


@pytest.mark.parametrize(
    ("concept", "text", "message"),
    [
        (
            "cat",
            "a dog",
            "another subject .* 'cat' .* got 'a dog'. Use one of astronaut, coffee, horse, rocket, photog",
        ),
        ("cat", "a kitten", "another subject"),
        ("cat", "pop art", "another subject"),
        ("pop art", "brick", "another style .* Use one of photo, pencil sketch, pixel art, vintage, neon"),
        ("photo", "nothing", "another style"),
        ("cat", "nothing", "got 'nothing': tiny-canvas draws one in every picture. Use one of astronaut"),
        ("brick", "nothing", "another place .* draws one in every picture"),
        ("night", "nothing", "another time .* draws one in every picture.* Use one of noon, sunset"),
    ],
)
def test_tiny_canvas_refuses_what_it_cannot_draw(concept, text, message):
    with pytest.raises(UserError, match=message) as caught:
        TinyComposer().replacement(text, Named(concept, kind_of(concept, "object")))
    assert "\n" not in str(caught.value)


# refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("concepts", "text", "message"),
    [
        ("cat", "", r"expected words for what is drawn instead \(replace_with\), got ''"),
        ("cat", " . ", "expected words for what is drawn instead"),
        ("cat", "dog, horse", "expected one thing to draw instead .* got 'dog, horse'"),
        ("cat", "dog + horse", r"got 'dog \+ horse'\. Name one of them: several are for several concepts"),
        ("cat + pop art", "dog + a photo + fox", "one for each of 2 .* Name one, or 2: .* of 'cat', of 'pop art'"),
        ("cat", "(dog:1.2)", "with brackets. Write 'dog'"),
        ("cat", "<lora:dog:1>", "with brackets"),
        ("cat", "two Kittens", "than what is removed, got 'two Kittens', which says 'kittens'"),
        ("cat + dog", "a puppy", "than what is removed, got 'a puppy'"),
        ("cat", "watercolor", "expected an object to draw in the place of 'cat' .* got 'watercolor'"),
        ("cat", "a plain photo", "expected an object to draw in the place of 'cat'"),
        ("cat + pop art", "a dog", "expected a style to draw in the place of 'pop art' .* got 'a dog'"),
        ("cat", "naked", "expected an object"),
    ],
)
def test_what_cannot_be_drawn_instead_is_refused(concepts, text, message):
    with pytest.raises(UserError, match=message) as caught:
        PromptSet.build(concepts, n=4, n_test=1, replace_with=text)
    told = str(caught.value)
    assert told.startswith("expected ") and "draw" in told and "(replace_with)" in told and "\n" not in told


@pytest.mark.parametrize(("world", "text", "kept"), [("open", "a dog", "puppy"), ("tiny-canvas", "a horse", "pony")])
def test_what_must_stay_forgotten_is_not_drawn_instead(world, text, kept):
    with pytest.raises(UserError, match="replace_with"):
        PromptSet.build("cat", n=4, n_test=1, world=world, replace_with=text, keep_forgotten=[kept])


def test_texts_belong_to_concepts_in_their_order():
    assert read_replacements("nothing + Nothing", ["cat", "pop art"]) == ("nothing", "nothing")
    with pytest.raises(UserError, match="expected a concept on both sides"):
        read_replacements("a dog + ", ["cat", "pop art"])


@pytest.mark.parametrize("world", ["open", "tiny-canvas"])
@pytest.mark.parametrize(
    ("concept", "kind", "text"),
    [("cat", "object", "horse"), ("pop art", "style", "nothing"), ("cat + pop art", "object", "horse + pencil sketch")],
)
@pytest.mark.parametrize("structure", ["diverse", "uniform"])
def test_only_the_anchors_change(world, concept, kind, text, structure):
    options = {"kind": kind, "n": 60, "n_test": 20, "world": world, "structure": structure}
    plain, made = PromptSet.build(concept, **options), PromptSet.build(concept, **options, replace_with=text)
    assert plain.anchor_train == plain.retain_train and plain.anchor_test == plain.retain_test
    assert not plain.own_anchors and made.own_anchors
    for split in ("train", "test"):
        for role in ("forget", "retain"):
            assert getattr(made, f"{role}_{split}") == getattr(plain, f"{role}_{split}")
    anchors = [*made.anchor_train, *made.anchor_test]
    assert not any(map(made.names_concept, anchors))
    assert all(pair.anchor not in (None, pair.forget) for pair in itertools.chain(made.train, made.test))
