"""Errors, files, progress, processes, version: nothing of unlearning."""
