"""Explanations as one self-contained HTML page."""

from explain.report.page import write

__all__ = ["write"]
