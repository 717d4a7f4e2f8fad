"""Trained models kept on disk: one safetensors file each, its origin and accuracy as JSON in the header."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch_geometric.data import Data

from explain.parallel import fingerprint
from explain.storage import write_atomically
from models import training
from models.training import Recipe, accuracy, gradient_norm, train

Built = TypeVar("Built")
_FIELDS = ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask")  # val_mask: weights are selected by it


@dataclass(frozen=True)
class Trained:
    """A module in eval mode, how well it does (``facts``), and whether it came from the cache."""

    module: nn.Module
    facts: dict[str, Any]
    cached: bool


class Kept(NamedTuple):
    """Weights and facts, whether they came from the cache, and the file that holds them."""

    state: dict[str, Tensor]
    facts: dict[str, Any]
    cached: bool
    path: Path


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
    config = origin(
        kind.__name__,
        code=(sys.modules[kind.__module__], training),
        data=[data[name] for name in _FIELDS if name in data],
        sizes=sizes,
        recipe=asdict(recipe),
        seed=seed,
    )
    module = kind(data.num_features, int(data.y.max()) + 1, **sizes).to(data.x.dtype)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        train(module, data, recipe, seed=seed, progress=progress)
        facts = {
            "test_accuracy": accuracy(module, data, data.test_mask),
            "gradient_norm": gradient_norm(module, data, recipe.weight_decay),
        }
        return module.state_dict(), facts

    found = kept(kind.__name__, config, make, folder=folder, fresh=fresh)
    module.load_state_dict(found.state)
    return Trained(module.eval(), found.facts, found.cached)


def kept(
    name: str,
    config: dict[str, Any],
    make: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]],
    *,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
) -> Kept:
    """What ``make() -> (weights, facts)`` once made of this configuration, or makes now; its seconds are facts too.

    ``seconds`` are the clock's, ``cpu_seconds`` those of this process.

    Warns:
        UserWarning: the checkpoint cannot be written.
    """
    path = cache_folder(folder) / f"{name}-{digest(json.dumps(config).encode())[:16]}.safetensors"
    found = None if fresh else read(path, config)
    if found is not None:
        return Kept(*found, cached=True, path=path)
    started, worked = time.perf_counter(), time.process_time()
    state, facts = make()
    facts |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - worked}
    write(path, state, config, facts)
    return Kept(state, facts, cached=False, path=path)


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where checkpoints live."""
    return Path(folder or os.environ.get("EXPLAIN_CACHE") or Path.home() / ".cache" / "explain" / "models")


def origin(
    model: str, code: Iterable[ModuleType | Callable[..., Any]], data: Iterable[Tensor], **settings: Any
) -> dict[str, Any]:
    """Everything that weights hang on: the configuration of a checkpoint.

    Args:
        model: its name.
        code: modules and functions whose source counts.
        data: tensors that it is made from.
        settings: plain values; releases of libraries too.
    """
    return {
        "model": model,
        **settings,
        "data": digest(*(part.detach().cpu().contiguous().numpy().tobytes() for part in data)),
        "code": digest(*(inspect.getsource(part).encode() for part in code)),
        "torch": torch.__version__,
    }


def digest(*parts: bytes) -> str:
    """SHA-256 of these bytes, one after the other."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _checksum(config: str, facts: str, state: dict[str, Tensor]) -> str:
    """Over all that `load` gives back."""
    return fingerprint(config, facts, {name: state[name] for name in sorted(state)})


def write(path: Path, state: dict[str, Tensor], config: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write weights, what they were trained from and how well, whole or not at all.

    Warns:
        UserWarning: the folder cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = {"config": json.dumps(config), "facts": json.dumps(facts)}
    header["sha256"] = _checksum(header["config"], header["facts"], state)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, safetensors.torch.save(state, metadata=header))
    except OSError as error:
        warnings.warn(f"the checkpoint is not kept ({error}): point EXPLAIN_CACHE to a writable folder", stacklevel=3)


def read(path: Path, config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Weights and facts, or None where the file is missing, damaged, or of another configuration."""
    try:
        state, found, facts = load(path)
    except (OSError, ValueError):
        return None
    return (state, facts) if found == json.loads(json.dumps(config)) else None


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Weights, configuration and facts of a file that `write` wrote. Nothing in it is run.

    Raises:
        ValueError: a pickle (such as torch.save writes), another format, cut short, or altered.
        OSError: no such file, or it cannot be read.
    """
    blob = Path(path).read_bytes()
    header = blob[8:9] == b"{"  # after eight bytes of its length, which may begin as a pickle does
    suffixes = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
    if Path(path).suffix in suffixes or (blob.startswith((b"PK", b"\x80")) and not header):
        raise ValueError(
            f"{path} is a pickle, which can run any code when it is read, and is refused: save the weights as "
            "safetensors (safetensors.torch.save_file(module.state_dict(), 'weights.safetensors'))"
        )
    try:
        state = safetensors.torch.load(blob)
        found = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]
        config, facts = json.loads(found["config"]), json.loads(found["facts"])
        whole = found["sha256"] == _checksum(found["config"], found["facts"], state)
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a whole checkpoint of these models ({error!r}): train again") from error
    if not whole or not isinstance(config, dict) or not isinstance(facts, dict):
        raise ValueError(f"{path} was altered after it was saved (its checksum does not fit): train again")
    return state, config, facts


def rebuilt(path: str | os.PathLike[str], build: Callable[[dict[str, Tensor], dict[str, Any]], Built]) -> Built:
    """What ``build(weights, configuration)`` makes of a file that `write` wrote.

    Raises:
        ValueError: a pickle, a damaged file, or a checkpoint of another model.
        OSError: no such file, or it cannot be read.
    """
    state, config, _ = load(path)
    try:
        return build(state, config)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} holds a {config.get('model', 'model')!r}, not these ({error!r:.80})") from error
