"""Reproducibility package for QoQ-Med (arXiv 2506.00711)."""

from typing import Any

__all__ = ["load_model", "load_traces"]


def __getattr__(name: str) -> Any:
    """Import heavy names when they are first asked for: ``import qoq_lib`` stays light."""
    if name == "load_model":
        from qoq_lib.model.loading import load_model

        return load_model
    if name == "load_traces":
        from qoq_lib.publishing.loading import load_traces

        return load_traces
    raise AttributeError(f"module 'qoq_lib' has no attribute {name!r}")
