"""What kind of file it is whose keys no format reads, said in words."""

import re
from collections.abc import Collection

_KINDS = (
    (r"\.hada_", "a LoHa, which multiplies two low-rank changes"),
    (r"\.lokr_", "a LoKr, whose change is a Kronecker product"),
    (r"\.b?oft_|\.oft_", "an OFT, which turns the weights instead of adding to them"),
    (r"\.ia3_|\.on_input$", "an IA3, which multiplies what layers give"),
    (r"\.(a1|a2|b1|b2|bm1|bm2)\.weight$", "a GLoRA"),
    (r"vera_lambda", "a VeRA, whose factors are shared by all layers"),
    (r"\.lora_E($|\.)", "an AdaLoRA"),
    (r"\.dora_scale|lora_magnitude_vector", "a DoRA, which also sets the length of each row of the weights"),
    (r"\.lora_mid\.|\.lora_t[12]$", "a LoCon with a middle factor (a Tucker decomposition)"),
    (r"\.lora_(up|down|A|B)(\.\w+)?\.bias$", "a LoRA with biases"),
    (r"\.[wb]_norm$", "a LyCORIS with changes of norms"),
    (r"lora_embedding_", "a LoRA with an embedding"),
    (r"^bundle_emb\.|^emb_params$|^string_to_param", "an embedding of textual inversion"),
    (r"^lora_te\d*_|^te\d*_|(^|\.)text_encoder(_\d)?\.", "a LoRA that changes a text encoder"),
    (r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\.", "a whole checkpoint"),
    (
        r"\.processor\.|_lora\.(up|down)\.|\.lora\.(up|down)\.|lora_linear_layer",
        "a LoRA with the names of old versions of diffusers (load and save it again with diffusers)",
    ),
)
"""What a key looks like -> the kind of file that has such keys."""


def kind_of(names: Collection[str]) -> tuple[str, str] | None:
    """The kind of a file that can't be applied, and a key that shows it; None for an unknown kind.

    Args:
        names: the keys that no format reads.

    >>> kind_of(["lora_unet_out_2.hada_w1_a"])
    ('a LoHa, which multiplies two low-rank changes', 'lora_unet_out_2.hada_w1_a')
    """
    for pattern, meaning in _KINDS:
        found = next((name for name in sorted(names) if re.search(pattern, name)), None)
        if found:
            return meaning, found
    return None
