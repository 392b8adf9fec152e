"""The cards of the bundled models: their Python as it stands."""

import numpy as np
import pytest
import turpentine

from ..support import pages

CARDS = [page for page in pages.PAGES if page.match("assets/*/README.md") and pages.python(page)]


def test_every_model_that_draws_has_an_example():
    assert {page.parent.name for page in CARDS} >= {"tiny-canvas", "tiny-canvas-dit", "digits"}


@pytest.mark.parametrize("page", CARDS, ids=lambda page: page.parent.name)
def test_the_example_draws(page, monkeypatch):
    monkeypatch.chdir(pages.ROOT)
    (code,) = pages.python(page)
    names: dict[str, object] = {"turpentine": turpentine}
    lines = code.rstrip().splitlines()
    exec("\n".join([*lines[:-1], f"drawn = {lines[-1]}"]), names)
    images = names["drawn"] if isinstance(names["drawn"], list) else [names["drawn"]]
    assert all(np.asarray(image).std() > 5 for image in images), "a picture is no flat colour"
