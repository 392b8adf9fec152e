"""Joint attention in which a token can stand for several equal ones."""

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor


class WeightedJointAttention:
    """Attention of image and text tokens to each other, as Stable Diffusion 3's blocks have it.

    n equal tokens weigh n times as much in the softmax as one, so one whose logit is raised by ln n
    stands for them all. They stay equal from layer to layer, as text tokens have no position.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend, and project.

        Args:
            attn: the layer.
            hidden_states: image tokens, (B, I, D).
            encoder_hidden_states: text tokens, (B, T, D).
            attention_mask: not used.
            counts: how many tokens each one stands for, (I + T,); one if not given.
        """

        def heads(tokens: Tensor) -> Tensor:
            return tokens.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        image, text = hidden_states, encoder_hidden_states
        query = torch.cat([attn.norm_q(heads(attn.to_q(image))), attn.norm_added_q(heads(attn.add_q_proj(text)))], 2)
        key = torch.cat([attn.norm_k(heads(attn.to_k(image))), attn.norm_added_k(heads(attn.add_k_proj(text)))], 2)
        value = torch.cat([heads(attn.to_v(image)), heads(attn.add_v_proj(text))], 2)
        logits = (query * attn.scale) @ key.transpose(-1, -2)
        if counts is not None:
            logits = logits.float() + counts.log()
        mixed = (logits.softmax(-1).to(value.dtype) @ value).transpose(1, 2).flatten(2)
        image, text = mixed.split([image.shape[1], text.shape[1]], dim=1)
        return attn.to_out[0](image), text if attn.context_pre_only else attn.to_add_out(text)
