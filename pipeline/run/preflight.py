"""Everything that can be known before the first image is drawn, checked before anything is written."""

from dataclasses import dataclass

from ..models import Denoiser
from ..models.load import choose_device
from ..prompts import PromptSet
from ..schema.resolve import Setting
from ..weights import FORMATS, check_dtype, check_formats
from .audit import audit_prompts, subject_of
from .prompts import prompts_of


@dataclass(frozen=True)
class Checked:
    """What `preflight` found to be in order.

    Attributes:
        prompts: of the run.
        warnings: what the user should know before the work starts.
    """

    prompts: PromptSet
    warnings: tuple[str, ...] = ()


def preflight(setting: Setting, prompts: PromptSet | None = None, denoiser: Denoiser | None = None) -> Checked:
    """Check all that needs no loaded model: in milliseconds, or as long as a language model takes for the prompts.

    Args:
        setting: what is to be done.
        prompts: those of the run, where they are made already.
        denoiser: the model, where it is already loaded.

    Raises:
        UserError: the run would fail later.
    """
    recipe = setting.recipe
    if denoiser is None:
        choose_device(recipe.device)
    prompts = prompts or prompts_of(setting, denoiser)
    audit_prompts(prompts, recipe.audits, subject_of(setting))
    return Checked(prompts, prompts.warnings)


def preflight_model(setting: Setting, prompts: PromptSet, denoiser: Denoiser) -> tuple[str, ...]:
    """Check what only the loaded model knows; gives warnings.

    Args:
        setting: what is to be done.
        prompts: of the run.
        denoiser: the model.

    Raises:
        UserError: the run would fail later.
    """
    output = setting.recipe.output
    check_formats(denoiser, output.formats)
    if not all(FORMATS[each].of_difference for each in output.formats):
        check_dtype(denoiser, output.dtype)
    return ()
