"""Formulas on tensors: no files, no configuration, no global random state."""
