"""A picture within a notebook's page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from html import escape

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_DPI = 80


def inline(draw: Callable[[], Axes], alt: str) -> str:
    """What ``draw`` draws as an ``<img>``, its figure closed; where it cannot be drawn, why: the words stand alone.

    >>> inline(lambda: plt.subplots()[1], "two axes")[:46]
    '<img alt="two axes" src="data:image/png;base64'
    """
    before = plt.get_fignums()
    file = io.BytesIO()
    try:
        figure = draw().get_figure(root=True)
        assert isinstance(figure, Figure)
        figure.savefig(file, format="png", dpi=_DPI, facecolor="white", bbox_inches="tight")
    except Exception as error:  # whatever it is, the table must be shown
        return f"<small>no picture: {escape(str(error) or type(error).__name__)}</small><br>"
    finally:
        for number in set(plt.get_fignums()) - set(before):
            plt.close(number)
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"/><br>'
