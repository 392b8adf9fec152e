"""One row of a prompt set: with the concept, without it, and what is drawn instead."""

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, field_validator, model_serializer


class PromptPair(BaseModel):
    """A prompt with the concept and the same one without.

    Attributes:
        forget: with the concept.
        retain: without it.
        anchor: what is drawn instead of the concept; None: the retain prompt.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    forget: str
    retain: str
    anchor: str | None = None

    @field_validator("forget", "retain", "anchor")
    @classmethod
    def _on_one_line(cls, prompt: str | None) -> str | None:
        return prompt and " ".join(prompt.split())

    @model_serializer(mode="wrap")
    def _without_absent_anchor(self, write: SerializerFunctionWrapHandler) -> dict[str, str]:
        """Write two prompts as they were written before there were anchors."""
        return {role: prompt for role, prompt in write(self).items() if prompt is not None}

    @property
    def instead(self) -> str:
        """The prompt of what is drawn instead of the concept."""
        return self.retain if self.anchor is None else self.anchor
