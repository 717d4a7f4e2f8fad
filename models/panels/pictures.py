"""Pictures of panels: credit beside, or below, what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

import explain


def in_units(why: explain.Explanation, unit: str) -> explain.Explanation:
    """The same answer, whose pictures say what its number is measured in."""
    return replace(why, target={**why.target, "payoff": unit})


def beside(why: explain.Explanation) -> Figure:
    """A picture, and the credit of its patches beside it."""
    figure = explain.plot.heatmap(why).get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def above(why: explain.Explanation, images: Mapping[str, Tensor]) -> Figure:
    """Bars of credit, and above them pictures ``[1, h, w]`` by what is said of each."""
    rows: Any = [list(images), ["credit"] * len(images)]
    figure, axes = plt.subplot_mosaic(rows, figsize=(6.4, 3.8), layout="constrained")
    for said, image in images.items():
        axes[said].imshow(image[0].numpy(), cmap="gray", vmin=-1, vmax=1)
        axes[said].set(xticks=[], yticks=[])
        axes[said].set_title(said, fontsize="small")
    explain.plot.bars(why, axes["credit"])
    return figure
