"""The HTML of the page, from the files in `templates/`, which escape everything that they are given."""

from pathlib import Path

from ..pipeline.support.templates import environment
from ..pipeline.support.text import duration, size

_TEMPLATES = environment(Path(__file__).parent / "templates")
_TEMPLATES.filters |= {"duration": duration, "size": size}


def render(template: str, **values: object) -> str:
    """Fill a template of the page."""
    return _TEMPLATES.get_template(f"{template}.html").render(values)


def note(text: str) -> str:
    """A line that stands where there is nothing to show yet."""
    return render("note", text=text)
