"""Trained models kept on disk: one safetensors file each, its origin and accuracy as JSON in the header."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch_geometric.data import Data

from explain.storage import write_atomically
from models import training
from models.training import Recipe, accuracy, gradient_norm, train


@dataclass(frozen=True)
class Trained:
    """A module in eval mode, how well it does (``facts``), and whether it came from the cache."""

    module: nn.Module
    facts: dict[str, Any]
    cached: bool


def trained(
    kind: type[nn.Module],
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
    **sizes: Any,
) -> Trained:
    """``kind(features, classes, **sizes)`` trained on ``data``, or the same model from the cache.

    A file is used only if it was trained from the same data, sizes, recipe, seed, code and torch release and its
    checksum fits; otherwise the model is trained again and the file replaced. ``fresh`` trains in any case. The cache
    is ``folder``, else the environment's ``EXPLAIN_CACHE``, else ``~/.cache/explain/models``.

    Warns:
        UserWarning: the checkpoint cannot be written; the model is trained all the same.
    """
    config = _config(kind, data, recipe, seed, sizes)
    path = cache_folder(folder) / f"{kind.__name__}-{_digest(json.dumps(config).encode())[:16]}.safetensors"
    module = kind(data.num_features, int(data.y.max()) + 1, **sizes).to(data.x.dtype)
    found = None if fresh else _read(path, config)
    if found is not None:
        module.load_state_dict(found[0])
        return Trained(module.eval(), found[1], cached=True)
    started = time.perf_counter()
    train(module, data, recipe, seed=seed, progress=progress)
    facts = {
        "test_accuracy": accuracy(module, data, data.test_mask),
        "gradient_norm": gradient_norm(module, data, recipe.weight_decay),
        "seconds": time.perf_counter() - started,
    }
    _write(path, module.state_dict(), config, facts)
    return Trained(module, facts, cached=False)


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where checkpoints live."""
    return Path(folder or os.environ.get("EXPLAIN_CACHE") or Path.home() / ".cache" / "explain" / "models")


def _config(kind: type[nn.Module], data: Data, recipe: Recipe, seed: int, sizes: dict[str, Any]) -> dict[str, Any]:
    """Everything that the weights hang on."""
    parts = [data[name].cpu().numpy().tobytes() for name in ("x", "edge_index", "y", "train_mask", "test_mask")]
    code = inspect.getsource(sys.modules[kind.__module__]) + inspect.getsource(training)
    return {
        "model": kind.__name__,
        "sizes": sizes,
        "recipe": asdict(recipe),
        "seed": seed,
        "data": _digest(*parts),
        "code": _digest(code.encode()),
        "torch": torch.__version__,
    }


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _checksum(state: dict[str, Tensor]) -> str:
    return _digest(*(name.encode() + state[name].cpu().contiguous().numpy().tobytes() for name in sorted(state)))


def _write(path: Path, state: dict[str, Tensor], config: dict[str, Any], facts: dict[str, Any]) -> None:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = {"config": json.dumps(config), "facts": json.dumps(facts), "sha256": _checksum(state)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, safetensors.torch.save(state, metadata=header))
    except OSError as error:
        warnings.warn(f"the checkpoint is not kept ({error}): point EXPLAIN_CACHE to a writable folder", stacklevel=3)


def _read(path: Path, config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Weights and facts, or None where the file is missing, damaged, or of another configuration."""
    try:
        blob = path.read_bytes()
        state = safetensors.torch.load(blob)
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]
        fits = json.loads(header["config"]) == json.loads(json.dumps(config)) and header["sha256"] == _checksum(state)
        return (state, json.loads(header["facts"])) if fits else None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
