"""The kinds of models: a row of the matrix each."""

from __future__ import annotations

from collections.abc import Callable

from models.matrix.case import Case
from models.matrix.denoisers import DENOISERS
from models.matrix.graphs import NODES
from models.matrix.vectors import VECTORS

KINDS: dict[str, Callable[[], Case]] = {**NODES, **VECTORS, **DENOISERS}
