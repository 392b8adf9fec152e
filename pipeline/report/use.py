"""How to load what a run wrote, and how to make it again: shared by the page and the model card."""

import json

from ..models.registry import family_called
from ..schema.results import Results
from ..weights import FORMATS

REPRODUCE = "turpentine unlearn --recipe RUN/recipe.yaml"

CITATION = """@inproceedings{ko2024boosting,
  title     = {Boosting Alignment for Post-Unlearning Text-to-Image Generative Models},
  author    = {Ko, Myeongseob and Li, Henry and Wang, Zhun and Patsenker, Jonathan and Wang, Jiachen T. and
               Li, Qinbin and Jin, Ming and Song, Dawn and Jia, Ruoxi},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2024}
}"""


def snippet(results: Results) -> str | None:
    """Python that loads the weights; None if the run wrote none.

    What stands alone comes before what needs the base model.
    """
    if not results.weights:
        return None
    known = [file for file in results.weights if file.format in FORMATS]
    if not known:
        file = results.weights[0]
        return f"# RUN/{file.path} is of the format {file.format!r}, which this version of Turpentine doesn't know."
    chosen = min(known, key=lambda file: FORMATS[file.format].rank)
    path = json.dumps(f"RUN/{chosen.path}", ensure_ascii=False)
    load = FORMATS[chosen.format].load(path, family_called(results.model.family))
    if load.startswith("#"):
        return load
    return f'{load}\nimage = pipeline("your prompt").images[0]\nimage.save("picture.png")'
