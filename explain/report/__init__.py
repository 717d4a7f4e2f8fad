"""Explanations as one self-contained HTML page.

No model may enter: a page is made of answers.
"""

from explain.report.page import write

__all__ = ["write"]
