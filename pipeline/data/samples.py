"""SampleSet: the images of D_f and D_r, as clean latents with their conditioning.

A text-to-image model draws them itself, so their latents are at hand without a round trip through
pixels; images are decoded only for people to look at. For a class-conditional model they are real
training images (Ko et al. 2024, Section 4.1).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..maths.metrics import class_similarity
from ..models import Conditioning, Denoiser, Sampling
from ..prompts import PromptSet
from ..schema.recipe import DataSection, SampleSection
from ..support.errors import UserError
from ..support.files import replacing
from ..support.processes import ALONE, Processes
from ..support.progress import Progress, Silent, Within, batches
from .datasets import LabelledImages
from .pictures import read_pictures


@dataclass(frozen=True)
class Samples:
    """Clean latents and the conditioning of the prompts that they were drawn from.

    Attributes:
        latents: (N, C, H, W), float32, on the CPU. Where nobody looks at them they were not drawn: (0, C, H, W).
        conditioning: name -> (U, ...), one row per distinct prompt, in the number format that draws.
        rows: (N,), the conditioning row of each latent.
    """

    latents: Tensor
    conditioning: Conditioning
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def drawn(self) -> bool:
        """False where there are prompts, and no images of them."""
        return len(self.latents) > 0

    def take(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Conditioning]:
        """Latents and conditioning of some samples, on `device`; zeros stand for images that were not drawn."""
        if self.drawn:
            latents = self.latents[indices].to(device)
        else:
            latents = torch.zeros(len(indices), *self.latents.shape[1:], device=device)
        return latents, self.conditioning_at(self.rows[indices], device)

    def conditioning_at(self, rows: Tensor, device: torch.device) -> Conditioning:
        """Some rows of the conditioning, on `device`; embeddings in float32, whatever they are kept in."""
        return in_float32({name: value[rows].to(device) for name, value in self.conditioning.items()})


def in_float32(conditioning: Conditioning) -> Conditioning:
    """Embeddings in float32, as training takes them; labels as they are."""
    return {name: rows.float() if rows.is_floating_point() else rows for name, rows in conditioning.items()}


class Judge(Protocol):
    """Says how alike images are: `audits.ClassJudge`."""

    def features(self, images: Tensor) -> Tensor:
        """Features, (N, F), of images (N, C, H, W) in [-1, 1]."""
        ...


@dataclass(frozen=True)
class SampleSet:
    """D_f and D_r.

    Attributes:
        forget: what is to be forgotten.
        retain: what is to be kept.
        pairs: the retain sample that is the partner of each forget sample, (number of forget samples,).
        anchors: what is drawn instead of each forget sample, a row of the retain conditioning; (number of forget
            samples,). None: the prompt of its partner.
    """

    forget: Samples
    retain: Samples
    pairs: Tensor
    anchors: Tensor | None = None

    def __post_init__(self) -> None:
        if not len(self.forget) or not len(self.retain):
            raise UserError(
                f"expected at least one forget and one retain sample, got {len(self.forget)} and {len(self.retain)}."
            )
        if self.pairs.shape != (len(self.forget),) or not 0 <= self.pairs.min() <= self.pairs.max() < len(self.retain):
            raise ValueError(
                f"pairs must name one of {len(self.retain)} retain samples for each of {len(self.forget)} forget "
                f"samples, got {self.pairs.tolist()}."
            )
        if self.anchors is not None:
            rows = len(next(iter(self.retain.conditioning.values())))
            if self.anchors.shape != self.pairs.shape or not 0 <= self.anchors.min() <= self.anchors.max() < rows:
                raise ValueError(
                    f"anchors must name one of {rows} rows of the retain conditioning for each of {len(self.forget)} "
                    f"forget samples, got {self.anchors.tolist()}."
                )

    @classmethod
    def in_order(cls, forget: Samples, retain: Samples, anchors: Tensor | None = None) -> "SampleSet":
        """Sample i of one is the partner of sample i of the other; fewer retain samples are gone through again."""
        return cls(forget, retain, torch.arange(len(forget)) % max(1, len(retain)), anchors)

    @property
    def one_to_one(self) -> bool:
        """Whether every retain sample is the partner of one forget sample, so that pairs train in the same step."""
        return len(self.forget) == len(self.retain) == len(self.pairs.unique())

    def anchor_of(self, indices: Tensor, device: torch.device) -> Conditioning:
        """Conditioning of what is drawn instead of some forget samples, on `device`."""
        rows = self.retain.rows[self.pairs[indices]] if self.anchors is None else self.anchors[indices]
        return self.retain.conditioning_at(rows, device)

    @classmethod
    def draw(
        cls,
        denoiser: Denoiser,
        prompts: PromptSet,
        spec: SampleSection | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        processes: Processes = ALONE,
        seen: Callable[[str, int, Tensor], None] | None = None,
        terms: Collection[str] = ("forget", "retain"),
    ) -> "SampleSet":
        """Let the model draw its own training images. Pairs share the seed of their noise; no anchor is drawn.

        Args:
            denoiser: the model.
            prompts: of which the training pairs are drawn.
            spec: how; None for the defaults.
            seed: of the first pair's noise.
            progress: told of each batch.
            processes: who draws.
            seen: called with the term, the place of the first and the latents of each batch that this process drew.
            terms: of which images are drawn; of the others there are prompts alone.
        """
        sampling, progress = (spec or SampleSection()).for_training().sampling(), progress or Silent()
        texts = {"forget": prompts.forget_train, "retain": prompts.retain_train}
        none = torch.zeros(0, *denoiser.latent_shape(sampling.image_size))
        drawn = {
            term: draw_latents(
                denoiser, texts[term], sampling, seed, progress, f"drawing {term} images", processes,
                partial(seen, term) if seen else None,
            ) if term in terms else none
            for term in texts
        }  # fmt: skip
        forget, _ = _samples(denoiser, drawn["forget"], texts["forget"])
        return cls.in_order(forget, *_samples(denoiser, drawn["retain"], texts["retain"], prompts.anchor_train))

    @classmethod
    def of_pictures(
        cls,
        denoiser: Denoiser,
        prompts: PromptSet,
        pictures: Sequence[Path],
        spec: SampleSection | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        processes: Processes = ALONE,
        flip: bool = False,
        seen: Callable[[str, int, Tensor], None] | None = None,
    ) -> "SampleSet":
        """Encode pictures as D_f, and let the model draw D_r.

        Each train row has a forget sample: that of row i is picture i modulo their number, so that few pictures are
        gone through again and again, each time with another prompt.

        Args:
            denoiser: the model.
            prompts: the captions are their forget prompts; see `caption_set`.
            pictures: files, at least one.
            spec: how D_r is drawn.
            seed: of D_r, as `draw` has it.
            progress: told of each image.
            processes: who draws; each encodes all pictures.
            flip: take the mirror images in turn with the pictures.
            seen: see `draw`.

        Raises:
            UserError: a picture that can't be read, or latents that are no numbers.
        """
        sampling, progress = (spec or SampleSection()).for_training().sampling(), progress or Silent()
        retain = draw_latents(
            denoiser, prompts.retain_train, sampling, seed, progress, "drawing retain images", processes,
            partial(seen, "retain") if seen else None,
        )  # fmt: skip
        scale = getattr(denoiser.pipeline, "vae_scale_factor", 1)
        height, width = (side * scale for side in retain.shape[-2:])
        shown = [*pictures, *pictures] if flip else pictures
        encoded = []
        with progress.stage("encoding the pictures to forget", len(shown)) as advance:
            for part in batches(enumerate(shown), sampling.batch_size):
                images = read_pictures([path for _, path in part], height, width)
                mirrored = torch.tensor([place >= len(pictures) for place, _ in part])
                images[mirrored] = images[mirrored].flip(-1)
                encoded.append(encode(denoiser, images))
                advance(len(part))
        row = torch.arange(len(prompts.train))
        turn = row.div(2 * len(pictures), rounding_mode="floor")  # a picture's caption and its near prompt
        latents = torch.cat(encoded)[row % len(pictures) + (len(pictures) * (turn % 2) if flip else 0)]
        forget, _ = _samples(denoiser, latents, prompts.forget_train)
        return cls.in_order(forget, *_samples(denoiser, retain, prompts.retain_train, prompts.anchor_train))

    @classmethod
    def from_images(
        cls,
        denoiser: Denoiser,
        data: LabelledImages,
        concept: str,
        spec: DataSection,
        judge: Judge,
        seed: int = 0,
        replace_with: str | None = None,
    ) -> "SampleSet":
        """Take real images: D_f is every image of the class, D_r some of the others.

        Args:
            denoiser: a class-conditional model.
            data: the training split.
            concept: name of the class to forget.
            spec: which other classes, and how many images.
            judge: whose features say which classes are similar.
            seed: decides which images are chosen.
            replace_with: name of the class that is drawn instead; None: those of the partners.

        Raises:
            UserError: no such class, or too few images of a class.
        """
        label = data.label(concept)
        others = [other for other in range(len(data.names)) if other != label]
        wanted = spec.retain_per_class * len(others)
        if spec.retain_classes == "similar":
            others = most_similar(
                class_similarity(judge.features(data.images), data.labels), label, spec.similar_classes
            )
        chosen = balanced(data, others, wanted, torch.Generator().manual_seed(seed))
        own = (data.labels == label).nonzero().flatten()
        names = list(dict.fromkeys([*data.names, *([replace_with] if replace_with else [])]))
        conditioning = {name: rows.cpu() for name, rows in denoiser.encode_prompts(names).items()}
        forget, retain = (Samples(data.images[rows], conditioning, data.labels[rows]) for rows in (own, chosen))
        anchors = torch.full((len(own),), names.index(replace_with)) if replace_with else None
        return cls.in_order(forget, retain, anchors)

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        tensors: dict[str, Tensor] = {"pairs": self.pairs}
        if self.anchors is not None:
            tensors["anchors"] = self.anchors
        for term, samples in (("forget", self.forget), ("retain", self.retain)):
            tensors |= {f"{term}.latents": samples.latents, f"{term}.rows": samples.rows}
            shared = samples.conditioning.items()  # by both terms, where they are of classes
            tensors |= {f"{term}.conditioning.{name}": value.clone() for name, value in shared}
        with replacing(path, lasting=True) as partial:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial)

    @classmethod
    def load(cls, path: Path) -> "SampleSet":
        """Read what `save` wrote; a file of a version that wrote no pairs has them in order.

        Raises:
            UserError: damaged.
        """

        def part(term: str) -> Samples:
            prefix = f"{term}.conditioning."
            conditioning = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            return Samples(tensors[f"{term}.latents"], conditioning, tensors[f"{term}.rows"])

        try:
            tensors = load_file(path)
            forget, retain, anchors = part("forget"), part("retain"), tensors.get("anchors")
            if "pairs" not in tensors:
                return cls.in_order(forget, retain, anchors)
            return cls(forget, retain, tensors["pairs"], anchors)
        except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
            raise UserError(f"the training images in {path} can't be read: {str(error).splitlines()[0]}.") from None


def draw_latents(
    denoiser: Denoiser,
    prompts: Sequence[str],
    sampling: Sampling,
    seed: int | Sequence[int],
    progress: Progress,
    stage: str,
    processes: Processes = ALONE,
    seen: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Draw one image per prompt; image i has the seed `seed` + i, or the i-th of several.

    Several processes take the batches in turn, and all get every image. `seen` is called with the place of the first
    image and the latents of each batch, as it is drawn.
    """
    held = processes.split(len(prompts), sampling.batch_size)
    seeds = [seed + index for index in range(len(prompts))] if isinstance(seed, int) else seed
    drawn: list[Tensor] = []
    with progress.stage(stage, len(held)) as advance, denoiser.drawing():
        for part in batches(held, sampling.batch_size):
            own = [prompts[index] for index in part], [seeds[index] for index in part]
            drawn.append(denoiser.sample(*own, sampling, Within(advance), stage))
            advance(len(part))
            if seen:
                seen(part[0], drawn[-1])
    return processes.gather(torch.cat(drawn) if drawn else None)


def encode(denoiser: Denoiser, images: Tensor) -> Tensor:
    """Latents (N, C, h, w), float32 on the CPU, of images (N, 3, H, W) in [0, 1].

    Raises:
        UserError: the model has no encoder, or gives latents that are no numbers.
    """
    vae = denoiser.pipeline.components.get("vae")
    if getattr(vae, "encoder", vae) is None:
        raise UserError("the model's autoencoder (vae) can't encode pictures. Give one with its encoder.")
    latents = denoiser.encode_images(images).float().cpu().contiguous()  # as they come back from a file: same bits
    if not latents.isfinite().all():
        raise UserError("the autoencoder (vae) encodes pictures as NaN or infinity: it overflows. Use it in float32.")
    return latents


def most_similar(similarity: Tensor, label: int, count: int) -> list[int]:
    """Labels of the `count` classes most similar to `label`, the most similar first.

    Args:
        similarity: (K, K).
        label: the class itself, which is left out.
        count: 1 to K - 1.
    """
    ranked = similarity[label].argsort(descending=True, stable=True).tolist()
    return [other for other in ranked if other != label][:count]


def balanced(data: LabelledImages, labels: Sequence[int], count: int, generator: torch.Generator) -> Tensor:
    """Indices of `count` images, as many of each class in `labels`; the first classes get what is left over.

    Raises:
        UserError: a class has too few images.
    """
    chosen = []
    for place, label in enumerate(labels):
        of_class = (data.labels == label).nonzero().flatten()
        share = count // len(labels) + (place < count % len(labels))
        if share > len(of_class):
            raise UserError(
                f"expected {share} images of {data.names[label]!r} for the retain set, which has {len(of_class)}. "
                "Lower retain_per_class."
            )
        chosen.append(of_class[torch.randperm(len(of_class), generator=generator)[:share]])
    together = torch.cat(chosen)
    return together[torch.randperm(len(together), generator=generator)]  # so that partners are of any class


def _samples(
    denoiser: Denoiser, latents: Tensor, prompts: Sequence[str], anchors: Sequence[str] = ()
) -> tuple[Samples, Tensor | None]:
    """The samples of these prompts, and the rows of their conditioning that the anchors have, if they differ."""
    anchors = [] if list(anchors) == list(prompts) else anchors
    distinct = sorted({*prompts, *anchors})
    row_of = {prompt: row for row, prompt in enumerate(distinct)}
    parts = [denoiser.encode_prompts(part) for part in batches(distinct, 64)]
    conditioning = {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
    rows, of_anchors = (torch.tensor([row_of[prompt] for prompt in texts]) for texts in (prompts, anchors))
    return Samples(latents, conditioning, rows), of_anchors if anchors else None
