"""The kinds of models: a row of the matrix each."""

from __future__ import annotations

from collections.abc import Callable

from models.matrix.case import Case
from models.matrix.denoisers import DENOISERS
from models.matrix.graph_level import GRAPH_LEVEL
from models.matrix.guided import GUIDED
from models.matrix.nodes import NODES
from models.matrix.recommendation import RECOMMENDATION
from models.matrix.states import STATES
from models.matrix.typed import TYPED
from models.matrix.vectors import VECTORS


def _prompted() -> Case:
    """See `models.matrix.prompted`."""
    from models.matrix.prompted import prompted  # seconds of transformers, for this alone

    return prompted()


PROMPTED: dict[str, Callable[[], Case]] = {"Stable Diffusion run": _prompted}
ON_GRAPHS: dict[str, Callable[[], Case]] = {**NODES, **GRAPH_LEVEL, **TYPED, **RECOMMENDATION}
KINDS: dict[str, Callable[[], Case]] = {**ON_GRAPHS, **VECTORS, **DENOISERS, **GUIDED, **PROMPTED, **STATES}
