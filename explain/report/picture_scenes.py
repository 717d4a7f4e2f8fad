"""What answers about pictures and prompts are seen on: regions of an image, steps of a run, words of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from explain.explanation import Explanation
from explain.report.pictures import frames, outlines, pngs
from explain.report.scenes import NOBODY, Scene

EXAMPLES = 6  # helpful pictures, and as many harmful ones


def image_scenes(answers: Sequence[Explanation]) -> list[Scene]:
    """Answers over the same regions of the same image share one drawing."""
    groups: list[list[Explanation]] = []
    for one in answers:
        geometry = one.players.geometry
        if "labels" not in geometry or geometry["labels"].dim() != 2:
            continue
        own = next((group for group in groups if _same(group[0], one)), None)
        if own is None:
            groups.append([one])
        else:
            own.append(one)
    return [_image(group) for group in groups]


def _same(first: Explanation, other: Explanation) -> bool:
    one, two = first.players.geometry, other.players.geometry
    same = torch.equal(one["labels"], two["labels"]) and ("image" in one) == ("image" in two)
    return same and ("image" not in one or torch.equal(one["image"], two["image"]))


def _image(answers: Sequence[Explanation]) -> Scene:
    geometry = answers[0].players.geometry
    paths = outlines(geometry["labels"])
    owners = tuple(paths)
    drawing: dict[str, Any] = {
        "paths": list(paths.values()),
        "size": list(geometry["labels"].shape[::-1]),
        "picture": "",
        "seen": "",
    }
    image = geometry.get("image")
    if image is not None and image.dim() == 3:
        drawing["picture"] = pngs(image[None])[0]
    return Scene("image", tuple(answers), (owners,) * len(answers), drawing)


def steps_scene(answers: Sequence[Explanation], film: Tensor | None, times: Sequence[float]) -> Scene | None:
    """The steps of a run, first left, each with what it foresaw where a film ``[steps, C, H, W]`` is at hand."""
    own = [one for one in answers if one.players.kind in ("steps", "guidance")]
    if not own:
        return None
    groups = [[group.tolist() for group in one.players.groups or tuple(one.players.index.view(-1, 1))] for one in own]
    count = 1 + max((step for found in groups for group in found for step in group), default=0)
    owners = []
    for found in groups:
        player = {step: i for i, group in enumerate(found) for step in group}
        owners.append(tuple(player.get(step, NOBODY) for step in range(count)))
    shown = frames(film) if film is not None and film.dim() == 4 and len(film) >= count else []
    single = len(own[0].players) == count and all(len(group) == 1 for group in groups[0])
    named = {group[0]: own[0].players.names[i] for i, group in enumerate(groups[0])} if single else {}
    whole = len(times) >= count
    names = [named.get(step, f"t={times[step]:.4g}" if whole else f"step {step + 1}") for step in range(count)]
    return Scene("steps", tuple(own), tuple(owners), {"names": names, "pictures": shown[:count]})


def words_scene(answers: Sequence[Explanation]) -> Scene | None:
    """The words of a prompt in their order, and of a negative one behind it."""
    own = [one for one in answers if one.players.kind == "words"]
    own = [one for one in own if one.players.names == own[0].players.names]
    if not own:
        return None
    names = list(own[0].players.names)
    return Scene("words", tuple(own), (tuple(range(len(names))),) * len(own), {"names": names})


def examples(one: Explanation, near: Tensor | None) -> list[dict[str, Any]]:
    """Rows of training pictures: what pushes the number up, what pushes it down, and what looks most alike in pixels.

    Args:
        one: over training pictures.
        near: the picture that was asked about, where it is known.
    """
    images = one.players.geometry.get("images")
    if one.players.kind != "train" or images is None or images.dim() != 4:
        return []
    order = one.scores.argsort(descending=True, stable=True)
    rows = {
        "up": order[one.scores[order] > 0][:EXAMPLES].tolist(),
        "down": order.flip(0)[one.scores[order.flip(0)] < 0][:EXAMPLES].tolist(),
    }
    if near is not None and near.shape == images.shape[1:]:
        apart = (images.double() - near.double()).flatten(1).norm(dim=1)
        rows["near"] = apart.argsort(stable=True)[:EXAMPLES].tolist()
    shown = list(dict.fromkeys(i for row in rows.values() for i in row))
    made = dict(zip(shown, pngs(images[shown]), strict=True))
    return [
        {"side": side, "players": [(i, one.players.names[i], float(one.scores[i]), made[i]) for i in row]}
        for side, row in rows.items()
        if row
    ]
