"""`MODEL_CARD.md`: the run as a card in the format of the Hugging Face hub."""

import re
from html import escape

import yaml

from ..schema.results import Results
from ..support.text import duration, listed, size
from .summary import THRESHOLDS, course, interference_text, model_label, outcome_text, rows, title, verdict
from .use import CITATION, REPRODUCE, snippet


def plain(text: str) -> str:
    r"""Make untrusted text safe inside Markdown: one line, no markup, no table cells, no HTML.

    >>> plain("a|b\n<b>*c*")
    'a\\|b &lt;b&gt;\\*c\\*'
    """
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", escape(" ".join(text.split()), quote=False))


def fenced(text: str, language: str = "") -> str:
    """Put text into a code block whose fence is longer than any inside it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _code(text: str) -> str:
    """Untrusted text as inline code inside a table."""
    return f"`{' '.join(text.replace('`', chr(39)).replace('|', '/').split())}`"


def _front_matter(results: Results) -> str:
    fields: dict[str, object] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    base = model_label(results)
    if base == results.model.name and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base):
        fields["base_model"] = base
    fields["tags"] = ["unlearning", "turpentine", "concept-erasure"]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _neighbours(results: Results) -> str:
    if results.interference is None:
        return "Neighbouring concepts may have suffered more than the retain figures, which are means, show."
    return plain(interference_text(results.interference))


def _judges(results: Results) -> str:
    names = [name for name, found in results.audits.after if found is not None]
    if not names:
        return ""
    who = f"The {'judges' if len(names) > 1 else 'judge'} of these figures ({plain(listed(names))})"
    errs = "err themselves" if len(names) > 1 else "errs itself"
    return f"- {who} {errs}; read changes, not absolute figures.\n"


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def model_card(results: Results) -> str:
    """Write the card of a run: figures, limits, use, recipe, hashes, citation.

    The licence is left out of the front matter: the base model's licence applies, and the run does not know it.
    """
    concept, base = plain(results.concept), plain(model_label(results))
    found = rows(results)
    figures = (
        _table(
            ["Figure", "Before", "After", "Change", "", "What it means"],
            [
                [
                    *map(plain, (row.name, row.before_text, row.after_text, row.change)),
                    outcome_text(row.outcome),
                    plain(row.meaning),
                ]
                for row in found
            ],
        )
        + f"\n\n{THRESHOLDS}"
        if found
        else "No audit was asked for."
    )
    code = snippet(results)
    files = _table(
        ["File", "Format", "Size", "sha256"],
        [[_code(file.path), plain(file.format), size(file.bytes), _code(file.sha256)] for file in results.weights],
    )
    training = results.training
    a_step = f" ({duration(training.seconds_per_step)} a step)" if training.steps else ""
    warnings = "\n".join(f"- {plain(warning)}" for warning in results.warnings)
    versions = ", ".join(f"{plain(name)} {plain(version)}" for name, version in results.versions.items())
    recipe = yaml.safe_dump(results.recipe, sort_keys=False, allow_unicode=True)
    parts = [
        _front_matter(results),
        f"# {plain(title(results))}",
        f"**{plain(verdict(results).text)}**",
        f"These are the weights of {base}, changed with the aim that the model no longer draws “{concept}” and "
        "otherwise draws as before; the figures tell how far that went. "
        "`report.html` of the same run shows pictures and curves.",
        f"## Warnings\n\n{warnings}" if warnings else "",
        f"## Figures\n\n{figures}",
        "## Use\n\n"
        + (
            f"`RUN` is the folder that holds this card.\n\n{fenced(code, 'python')}"
            if code
            else "This run wrote no weights."
        ),
        "## Intended use and limits\n\n"
        f"- Meant for: drawing with the base model where “{concept}” is not wanted, and research on unlearning.\n"
        "- The figures hold for the test prompts of this run, sampled as its recipe says. Other prompts, samplers "
        "and languages were not measured.\n"
        "- Unlearning of this kind can be undone: adversarial prompts, images as input or further fine-tuning may "
        "bring the concept back. It is no substitute for a filter where one is needed.\n"
        f"- {_neighbours(results)}\n"
        f"{_judges(results)}"
        "- The licence and the limits of the base model still apply.",
        "## Training\n\n"
        f"{plain(results.method)}, {course(training)}{a_step}, {duration(results.timings.total)} for the whole run, "
        f"peak memory {size(training.peak_memory_bytes)}. {versions}.",
        f"The recipe, from which `{REPRODUCE}` makes the run again:\n\n{fenced(recipe, 'yaml')}",
        f"## Weights\n\n{files}" if results.weights else "",
        f"Base weights ({plain(results.model.family)}): sha256 {_code(results.model.sha256)}.",
        f"## Citation\n\nThe method of the restricted gradient:\n\n{fenced(CITATION, 'bibtex')}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
