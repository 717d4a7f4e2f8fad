"""Explanations as one self-contained HTML page.

A page is made of answers: no model may enter, and targets only to be asked what they say of fewer players.
"""

from explain.report.page import write

__all__ = ["write"]
