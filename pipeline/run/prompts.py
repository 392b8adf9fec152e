"""From a concept to its paired prompts."""

from collections.abc import Sequence
from typing import Literal

from ..data.pictures import find_pictures
from ..models import Denoiser, class_names
from ..prompts import Caption, LLMSource, PromptSet, caption_set
from ..prompts.concepts import join_concepts
from ..schema.defaults import defaults_for
from ..schema.recipe import PromptSection
from ..schema.resolve import Setting
from ..support.errors import UserError
from ..support.places import looks_like_path, user_path
from ..support.text import counted
from ..worlds import World


def make_prompts(
    concepts: Sequence[str],
    kind: Literal["object", "style", "nudity"],
    spec: PromptSection,
    world: World,
    *,
    seed: int = 0,
    structure: Literal["diverse", "uniform"] = "diverse",
    attribute_of: str | None = None,
    keep_forgotten: Sequence[str] = (),
    usual_n: int | None = None,
) -> PromptSet:
    """Make paired forget and retain prompts: from a file of the user's, from the templates, or from a language model.

    Args:
        concepts: what is to be forgotten.
        kind: sort of concept.
        spec: how many pairs, and where they come from.
        world: whose words they use.
        seed: decides which combinations are drawn.
        structure: many pairs, or one repeated.
        attribute_of: the object whose attribute the concept is.
        keep_forgotten: concepts that were removed earlier and must stay removed.
        usual_n: `spec.n` where nobody chose it, if it is not the default of every model.

    Raises:
        UserError: a concept or an option that this world doesn't have, or a file that can't be read.
    """
    if spec.file:
        file = user_path(spec.file)
        read = PromptSet.load(
            file,
            concept=join_concepts(concepts),
            kind=kind,
            n_test=None if _is_default(spec, "n_test") or file.suffix.lower() == ".json" else spec.n_test,
            seed=seed,
            synonyms=spec.synonyms or None,
            attribute_of=attribute_of,
            keep_forgotten=keep_forgotten,
            world=world.name,
            replace_with=spec.replace_with,
        )
        unused = _without_effect(spec, read, structure, usual_n)
        return read.model_copy(update={"warnings": (*read.warnings, *unused)})
    return PromptSet.build(
        concepts,
        kind,
        n=spec.n,
        n_test=spec.n_test,
        seed=seed,
        world=world.name,
        structure=structure,
        source=spec.source,
        synonyms=spec.synonyms or None,
        llm=_llm(spec) if spec.source == "llm" else None,
        allow_fallback=spec.llm_fallback,
        attribute_of=attribute_of,
        keep_forgotten=keep_forgotten,
        replace_with=spec.replace_with,
    )


def prompts_of(setting: Setting, denoiser: Denoiser | None = None) -> PromptSet:
    """Make the prompts that a recipe asks for; `denoiser` where its model is already loaded."""
    recipe = setting.recipe
    spec = recipe.prompts.model_copy(update={"replace_with": recipe.instead})
    if recipe.kind == "class":
        names = denoiser.pipeline.class_names if denoiser else class_names(recipe.model)
        return PromptSet.of_classes(recipe.concept, names, spec.n, spec.n_test, recipe.seed, spec.replace_with)
    if recipe.data.forget_images is not None and spec.file is None:
        return _captioned(setting, spec)
    usual = defaults_for(recipe.model, recipe.method.name).get("prompts", {}) if spec.file else {}
    return make_prompts(
        recipe.concepts,
        recipe.kind,
        spec,
        setting.world,
        seed=recipe.seed,
        structure=recipe.method.data,
        attribute_of=recipe.attribute_of,
        keep_forgotten=setting.forgotten_before,
        usual_n=usual.get("n"),
    )


def _captioned(setting: Setting, spec: PromptSection) -> PromptSet:
    """The prompts of a folder of pictures: their captions, and what is near them."""
    recipe = setting.recipe
    pictures = find_pictures(str(recipe.data.forget_images))
    made = caption_set(
        [Caption(each.caption, str(each.files[-1])) for each in pictures],
        recipe.concept,
        recipe.kind if recipe.kind != "class" else "object",
        spec.n,
        spec.n_test,
        recipe.seed,
        setting.world.name,
        recipe.method.data,
        spec.synonyms or None,
        setting.forgotten_before,
        spec.replace_with,
    )
    if spec.source != "llm":
        return made
    unused = "source 'llm' has no effect: the prompts are those of the pictures' captions"
    return made.model_copy(update={"warnings": (*made.warnings, unused)})


def _is_default(spec: PromptSection, name: str) -> bool:
    return bool(getattr(spec, name) == PromptSection.model_fields[name].default)


def _without_effect(spec: PromptSection, read: PromptSet, structure: str, usual_n: int | None) -> tuple[str, ...]:
    """Say which options have no effect on the prompts of a file."""
    file = user_path(str(spec.file)).name
    found = []
    if spec.n not in (usual_n, len(read.train)) and not _is_default(spec, "n"):
        found.append(f"n {spec.n} has no effect: {file} has {counted(len(read.train), 'train row')}, and all are used")
    if spec.n_test != len(read.test) and not _is_default(spec, "n_test"):
        found.append(f"n_test {spec.n_test} has no effect: {file} has {counted(len(read.test), 'test row')} of its own")
    if structure == "uniform" and len(set(read.train)) > 1:
        found.append(f"data 'uniform' has no effect: the rows of {file} are used as they are, not one pair repeated")
    if spec.source == "llm" and read.source == "file":
        found.append(f"source 'llm' has no effect: the prompts are those of {file}")
    return tuple(found)


def _llm(spec: PromptSection) -> LLMSource:
    """The model of a server, or without a server's address one in a folder, if its name looks like a path."""
    model, url = spec.llm_model or "", spec.llm_url
    if url:
        return LLMSource(model=model, base_url=url)
    if not model:
        return LLMSource(model=model)
    if looks_like_path(model) and user_path(model).is_dir():
        return LLMSource(local_model=str(user_path(model)))
    if model.startswith((".", "~")) or user_path(model).is_absolute():
        raise UserError(f"expected a folder with a language model for llm_model, found none at {model}.")
    return LLMSource(model=model)
