"""Paired forget and retain prompts: D_f and D_r of Ko et al. 2024, Section 3 and Appendix D."""

from .banks import synonyms_of
from .captions import caption_set
from .compose import composed_worlds
from .composer import Caption
from .evaluation import EvaluationPrompt, load_prompts
from .llm import LLMSource
from .pair import PromptPair
from .prompt_set import PromptSet
from .questions import Question, questions_about

__all__ = [
    "Caption",
    "EvaluationPrompt",
    "LLMSource",
    "PromptPair",
    "PromptSet",
    "Question",
    "caption_set",
    "composed_worlds",
    "load_prompts",
    "questions_about",
    "synonyms_of",
]
