"""The version, typed once."""

__version__ = "0.1.0"
