"""Explanations as one self-contained HTML page."""

from explain.report.page import report

__all__ = ["report"]
