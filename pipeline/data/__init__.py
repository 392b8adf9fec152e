"""D_f and D_r: the samples that a model unlearns with."""
