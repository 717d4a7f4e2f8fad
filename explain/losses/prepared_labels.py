"""Labels as each loss takes them, or why they do not go with it."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from explain.losses.names import OF_VALUES, REMEDY
from explain.outputs import Form, Meaning

SAID: dict[Form, str] = {
    "none": "empty",
    "classes": "classes",
    "signs": "-1 and 1",
    "one_hot": "rows of 0 with one 1",
    "multi_hot": "rows of 0 and 1",
    "soft": "rows that sum to 1",
    "whole": "whole numbers",
    "reals": "real numbers",
}
ADVICE: dict[Form, str] = {
    "signs": "as classes they are (labels + 1) // 2; ",
    "classes": "of each output's own loss give the labels as rows of 0 and 1, [n, outputs]; ",
    "whole": "classes are counted from 0; ",
}


class _Given(NamedTuple):
    """Labels and what they are; ``wide [n, columns]``, ``flat [n]`` where there is one column."""

    labels: Tensor
    form: Form

    @property
    def wide(self) -> Tensor:
        return self.labels.reshape(len(self.labels), -1)

    @property
    def flat(self) -> Tensor | None:
        return self.wide[:, 0] if self.wide.size(1) == 1 else None


def prepared(name: str, meaning: Meaning, labels: Tensor, form: Form) -> Tensor:
    """Labels as the loss takes them: classes int64 ``[n]``, else real ``[n, outputs]``, ``[n]`` where there is one.

    Raises:
        ValueError: they do not fit the loss or the outputs.
    """
    given, count = _Given(labels, form), meaning.count
    _check_outputs(name, meaning)
    if name in OF_VALUES:
        found = _reals(given, count)
    elif name in ("cross_entropy", "multi_margin") or (name == "brier" and not meaning.binary):
        found = _of_one_class(name, given, count)
    elif count > 1:
        found = _of_each_output(name, given, count)
    else:
        found = _of_one_output(name, given)
    return found if found is not None else _refused(name, given, count)


def _check_outputs(name: str, meaning: Meaning) -> None:
    """Check that this is a loss of such outputs.

    Raises:
        ValueError: it is not.
    """
    if name in OF_VALUES:
        return
    if name in ("cross_entropy", "multi_margin") and (meaning.kind == "values" or meaning.count == 1):
        raise ValueError(
            f"{name} needs the outputs of several classes, the model has {meaning.count} {meaning.kind}: take "
            f"{'bce' if name == 'cross_entropy' else 'hinge'!r} for one output, 'mse' for values"
        )
    if meaning.kind == "values":
        raise ValueError(
            f"{name} is a loss of classes, and the outputs are values: take 'mse', or say outputs='logits'"
        )
    if name == "hinge" and meaning.count > 1:
        raise ValueError(f"hinge is a loss of one output, the model has {meaning.count}: take 'multi_margin'")


def _reals(given: _Given, count: int) -> Tensor | None:
    if given.wide.size(1) != count:
        return None
    taken = given.flat if given.flat is not None else given.wide
    return taken.to(torch.promote_types(taken.dtype, torch.float32))


def _of_one_class(name: str, given: _Given, count: int) -> Tensor | None:
    """For losses of the one class that an example has, or of its distribution over them."""
    if given.form == "classes" and given.flat is not None:
        return _classes(given.flat, count)
    if given.form == "one_hot":
        return given.wide.long().argmax(1)
    return given.wide if given.form == "soft" and given.wide.size(1) == count and name != "multi_margin" else None


def _of_each_output(name: str, given: _Given, count: int) -> Tensor | None:
    """For losses of several yes or no."""
    if given.wide.size(1) != count or given.form not in ("one_hot", "multi_hot", "soft", "reals"):
        return None
    _check_fraction(name, given.wide)
    return given.wide if given.wide.is_floating_point() else given.wide.float()


def _of_one_output(name: str, given: _Given) -> Tensor | None:
    """For losses of a single yes or no."""
    if given.flat is None:
        return None
    if given.form == "classes":
        return _classes(given.flat, 2)
    if name == "hinge":
        return (given.flat > 0).long() if given.form == "signs" else None
    if given.form != "reals":
        return None
    _check_fraction(name, given.flat)
    return given.flat


def _refused(name: str, given: _Given, count: int) -> NoReturn:
    """Say which labels the loss takes.

    Raises:
        ValueError: that.
    """
    labels, form = given
    if name in OF_VALUES:
        wanted = f"give real labels [n, {count}] for as many outputs"
    elif name == "bce" and count > 1:
        wanted = f"give rows of 0 and 1, [n, {count}], one for each output"
    else:
        classes = f"classes from 0 to {max(count, 2) - 1} are [n], int64 (unlabelled examples left out)"
        wanted = f"{ADVICE.get(form, '')}{classes}"
    raise ValueError(
        f"{name} of {count} output{'s' * (count > 1)} does not go with labels {list(labels.shape)} of {labels.dtype}, "
        f"{SAID[form]}: {wanted}, or {REMEDY}"
    )


def _classes(labels: Tensor, classes: int) -> Tensor:
    """Labels as classes, int64.

    Raises:
        ValueError: some are none of the classes.
    """
    if labels.is_floating_point() and labels.isnan().any():
        raise ValueError("some training labels are NaN: leave unlabelled examples out of the training set")
    found = labels.long()
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= classes:
        remedy = "leave unlabelled examples (an ignore_index) out of the training set"
        if low > 0 and high == classes:
            remedy = "classes that are counted from 1 are labels - 1"
        raise ValueError(
            f"training labels must be classes [n] from 0 to {classes - 1}, got {list(labels.shape)} from {low} to "
            f"{high}: {remedy}"
        )
    return found


def _check_fraction(name: str, labels: Tensor) -> None:
    """Check that labels that are known lie in [0, 1].

    Raises:
        ValueError: they do not.
    """
    known = labels[~labels.isnan()] if labels.is_floating_point() else labels
    if bool(((known < 0) | (known > 1)).any()):
        raise ValueError(f"{name} needs labels from 0 to 1, got {float(known.min()):.3g} to {float(known.max()):.3g}")
