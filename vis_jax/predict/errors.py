"""Errors of `predict`."""


class PredictError(ValueError):
    """An input that cannot be read, or an output that must not be written."""
