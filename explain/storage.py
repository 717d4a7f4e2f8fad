"""One explanation, one safetensors file: tensors as tensors, everything else as JSON in the header, never pickle."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from explain.credit import Credit
from explain.types import Players

Kind = TypeVar("Kind", bound=Credit)

FORMAT = "explain.Explanation"
VERSION = 2
READABLE = ("1", "2")  # before 2, doubts were not kept

# what the JSON of a file of this version must hold
RECORD: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "names": (list,),
    "group_sizes": (list, type(None)),
    "value": (float,),
    "base": (float, type(None)),
    "checks": (dict,),
    "method": (str,),
    "settings": (dict,),
    "target": (dict,),
    "seed": (int, type(None)),
    "versions": (dict,),
    "seconds": (float,),
    "calls": (int,),
    "doubts": (list,),
}


class CorruptExplanation(ValueError):
    """Not a whole explanation file: another format, cut short, or altered."""


class NewerExplanation(ValueError):
    """A file in a format that a later version of `explain` wrote."""


def save(explanation: Credit, path: str | os.PathLike[str]) -> None:
    """Write the file whole or not at all.

    Raises:
        ValueError: sparse tensors, or groups of unequal kinds, which the format does not hold.
        TypeError: ``path`` is none.
        OSError: it cannot be written there; see `write_atomically`.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _tensors(explanation).items()}
    record = json.dumps(_record(explanation))
    header = {"format": FORMAT, "version": str(VERSION), "explanation": record, "sha256": _digest(record, tensors)}
    write_atomically(path, safetensors.torch.save(tensors, metadata=header))


def load(path: str | os.PathLike[str], kind: type[Kind]) -> Kind:
    """Read a file that `save` wrote, as this kind of answer.

    Nothing in it is trusted: sizes, types and a checksum are verified first.

    Raises:
        CorruptExplanation: not such a file, cut short, or altered.
        NewerExplanation: written by a later version of `explain`.
        OSError: no such file, or it cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        tensors = safetensors.torch.load(data)
        header = _header(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise CorruptExplanation(f"{path} is not a whole safetensors file ({error}): save it again") from error
    _check_header(path, header, tensors)
    try:
        record = json.loads(header["explanation"])
        if header["version"] == "1" and isinstance(record, dict):
            record.setdefault("doubts", [])
        return kind(**_rebuilt(record, tensors))
    except (KeyError, ValueError, TypeError, RuntimeError, RecursionError, OverflowError) as error:
        raise CorruptExplanation(f"{path} does not hold a whole explanation: {error!r}") from error


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write beside the place, then rename: whoever looks sees the old file or the new one, never a part.

    Raises:
        TypeError: no path.
        OSError: the place is a link, a device or a folder, its folder is missing, or the disk is full; what was there
            before is still there.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"a file is written to a path such as 'why.safetensors', got {type(path).__name__}")
    target = Path(path)
    check_place(target)
    beside = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)  # already gone after a rename


def check_place(target: Path) -> None:
    """A rename would put a file in the place of a link or a device, whatever it leads to.

    Raises:
        FileExistsError: a link, or a device, pipe or socket.
        IsADirectoryError: a folder.
        FileNotFoundError: its folder is not there.
        NotADirectoryError: its folder is none.
    """
    folder = target.parent
    if target.is_symlink():
        raise FileExistsError(errno.EEXIST, f"a link to {os.readlink(target)}: save to that path itself", str(target))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder: name a file in it", str(target))
    if target.exists() and not target.is_file():
        raise FileExistsError(errno.EEXIST, "a device, pipe or socket, not a file: save to another path", str(target))
    if not folder.exists():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder to save in: make it first", str(folder))
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder to save in", str(folder))


def _tensors(explanation: Credit) -> dict[str, Tensor]:
    players = explanation.players
    tensors = {"scores": explanation.scores, "index": players.index}
    if explanation.error is not None:
        tensors["error"] = explanation.error
    if players.groups:
        kinds = {(group.dtype, group.shape[1:]) for group in players.groups}
        if len(kinds) > 1 or any(group.dim() == 0 for group in players.groups):
            raise ValueError(
                f"groups must be int64 [atoms] or [atoms, k] alike to be saved, got {sorted(map(str, kinds))}"
            )
        tensors["groups"] = torch.cat(players.groups)
    tensors |= {f"geometry/{name}": tensor for name, tensor in players.geometry.items()}
    tensors |= {f"parts/{name}": tensor for name, tensor in explanation.parts.items()}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise ValueError(f"{name} is {tensor.layout}, which a file does not hold: make it dense with .to_dense()")
    return tensors


def _record(explanation: Credit) -> dict[str, Any]:
    players = explanation.players
    return {
        "kind": players.kind,
        "names": list(players.names),
        "group_sizes": None if players.groups is None else [len(group) for group in players.groups],
        "value": explanation.value,
        "base": explanation.base,
        "checks": dict(explanation.checks),
        "method": explanation.method,
        "settings": dict(explanation.settings),
        "target": dict(explanation.target),
        "seed": explanation.seed,
        "versions": dict(explanation.versions),
        "seconds": explanation.seconds,
        "calls": explanation.calls,
        "doubts": list(explanation.doubts),
    }


def _header(data: bytes) -> dict[str, str]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size])["__metadata__"]


def _check_header(path: Any, header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    if header.get("format") != FORMAT:
        raise CorruptExplanation(
            f"{path} is a safetensors file but not an explanation (format {header.get('format')!r})"
        )
    version = header.get("version", "")
    if version.isascii() and version.isdigit() and len(version) < 10 and int(version) > VERSION:
        raise NewerExplanation(
            f"{path} has format version {version}, this `explain` reads up to {VERSION}: upgrade `explain` to load it"
        )
    if version not in READABLE:
        raise CorruptExplanation(f"{path} has format version {version!r}, expected {' or '.join(READABLE)}")
    record = header.get("explanation", "")
    if header.get("sha256") != _digest(record, tensors):
        raise CorruptExplanation(f"{path} was altered after it was saved: its checksum does not fit")


def _digest(record: str, tensors: Mapping[str, Tensor]) -> str:
    """Over everything that `load` gives back, so that no flipped bit passes for a score."""
    digest = hashlib.sha256(record.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _rebuilt(record: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What an answer holds, after its record and tensors were found to be what they should be.

    Raises:
        ValueError: something is not.
    """
    if not isinstance(record, dict) or record.keys() != RECORD.keys():
        raise ValueError(f"its record must have the keys {', '.join(RECORD)}")
    for key, kinds in RECORD.items():
        if type(record[key]) not in kinds:
            raise ValueError(f"{key} must be {' or '.join(kind.__name__ for kind in kinds)}, got {record[key]!r:.60}")
    for key in ("names", "doubts"):
        if not all(isinstance(text, str) for text in record[key]):
            raise ValueError(f"{key} must be strings")
    index, scores, error = tensors["index"], tensors["scores"], tensors.get("error")
    if index.dtype.is_floating_point or index.dim() not in (1, 2):
        raise ValueError(f"index must be int64 [P] or [P, k], got {index.dtype} {list(index.shape)}")
    if any(t is not None and t.dtype != torch.float64 for t in (scores, error)):
        raise ValueError("scores and their error must be float64")
    players = Players(
        kind=record["kind"],
        index=index,
        names=tuple(record["names"]),
        groups=_groups(record["group_sizes"], tensors),
        geometry=_named("geometry/", tensors),
    )
    made = {key: record[key] for key in RECORD.keys() - {"kind", "names", "group_sizes"}}
    return made | {"scores": scores, "players": players, "error": error, "parts": _named("parts/", tensors)}


def _groups(sizes: list[int] | None, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...] | None:
    if not sizes:
        return None if sizes is None else ()
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError("group_sizes must be counts")
    return tuple(group.clone() for group in tensors["groups"].split(sizes))  # one storage each


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
