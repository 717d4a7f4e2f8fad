"""A folder of finished shards, one file each, and a manifest that says what they are shards of."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar, cast

import safetensors.torch
from torch import Tensor

from explain.parallel.digest import fingerprint
from explain.storage import write_atomically

FORMAT = "explain.Shards"
VERSION = 1
ROUNDING = 1e-4  # numbers measured again, relative to the largest: kernels and devices round differently
_SHOWN = {"is", "fingerprint"}  # a setting that is more than one value
ABANDONED = 3600  # seconds after which a part of a file that nobody finished is cleared away

R = TypeVar("R")
Tensors: TypeAlias = dict[str, Tensor]


class Stale(ValueError):
    """The folder's shards belong to another model, other data or other settings; the message says to which."""


class Store(Generic[R]):
    """Results by number in a folder, each written whole or not at all, kept only for the run they belong to.

    Args:
        folder: made where it is missing. It holds ``manifest.json`` and one safetensors file a result.
        key: what the results depend on, JSON values by name: ``{"model": fingerprint(model), "settings": {...}}``.
        near: numbers measured when a run starts, by name, that must come out the same up to rounding.
        name: before the numbers of the files; stores of one key may share a folder under different names.
        save: ``(result, path)``, writes one result and replaces the file atomically.
        load: ``path -> result``; raises ValueError, KeyError or OSError where the file is not whole.

    Raises:
        Stale: the folder was written under another key, or holds shards and no manifest.
        OSError: the folder cannot be made, read or written.

    >>> import tempfile, torch
    >>> folder = tempfile.mkdtemp()
    >>> Store(folder, {"model": "a"}).write(0, {"scores": torch.ones(2)})
    >>> Store(folder, {"model": "a"}).read(0)
    {'scores': tensor([1., 1.])}
    >>> Store(folder, {"model": "b"})
    Traceback (most recent call last):
    explain.parallel.store.Stale: the shards in ... differs: model ('a' there, 'b' here). ...
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        key: Mapping[str, Any],
        near: Mapping[str, Sequence[float]] | None = None,
        *,
        name: str = "",
        save: Callable[[R, Path], None] | None = None,
        load: Callable[[Path], R] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.key = json.loads(json.dumps(dict(key)))
        self.near = {name: [float(number) for number in numbers] for name, numbers in (near or {}).items()}
        self.name = f"{name}-" if name else ""
        self._run = fingerprint(_sorted(self.key))[:12]
        self._save = save or cast(Callable[[R, Path], None], save_tensors)
        self._load = load or cast(Callable[[Path], R], load_tensors)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._clear_abandoned()
        self._open()

    def path(self, number: int) -> Path:
        """Where this result is kept; the name holds the run, so that files of another are never read as ours."""
        return self.folder / f"{self.name}{number:06d}-{self._run}.safetensors"

    def read(self, number: int) -> R | None:
        """The result, or None where it was not finished, was cut short, or was altered."""
        path = self.path(number)
        try:
            return self._load(path)
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
            return None

    def mapped(self, number: int) -> Tensors:
        """The tensors of a finished result where they lie: pages are read as they are used, and held by the system.

        Nothing is proved: `read` it first. Replaced files stay as they were for those who have mapped them.

        Raises:
            OSError: it is not there.
        """
        return safetensors.torch.load_file(self.path(number))

    def write(self, number: int, result: R) -> None:
        """Keep a result.

        Raises:
            OSError: the disk is full or the folder is gone; what was finished before is kept.
        """
        try:
            self._save(result, self.path(number))
        except OSError as error:
            raise OSError(
                error.errno,
                f"shard {number} could not be written ({os.strerror(error.errno or 0)}). The {len(self)} finished "
                "shards are kept: make room and call again, only the others are computed",
                str(self.folder),
            ) from error

    def __len__(self) -> int:
        """How many files of this run there are."""
        return sum(1 for _ in self.folder.glob(f"{self.name}[0-9]*-{self._run}.safetensors"))

    def _open(self) -> None:
        manifest = self.folder / "manifest.json"
        try:
            written = json.loads(manifest.read_text())
        except FileNotFoundError:
            if any(self.folder.glob("*-*.safetensors")):
                raise Stale(
                    f"{self.folder} holds shards but no manifest.json, so nobody can tell what they are shards of: "
                    "use another folder, or delete them"
                ) from None
            text = {"format": FORMAT, "version": VERSION, "key": self.key, "near": self.near}
            write_atomically(manifest, json.dumps(text, indent=1).encode())
            return
        except ValueError as error:
            raise Stale(f"{manifest} is not a manifest ({error}): use another folder, or delete this one") from error
        self._compare(written)

    def _compare(self, written: Any) -> None:
        if not isinstance(written, dict) or written.get("format") != FORMAT or written.get("version") != VERSION:
            raise Stale(f"{self.folder}/manifest.json is not one of shards of version {VERSION}: use another folder")
        wrong = _differences(written.get("key"), self.key)
        numbers = written["near"] if isinstance(written.get("near"), dict) else {}
        wrong = wrong or [name for name, found in self.near.items() if not _close(numbers.get(name), found)]
        if wrong:
            raise Stale(
                f"the shards in {self.folder} are of another run, which differs: {'; '.join(wrong)}. Use another "
                "folder, delete this one to start again, or put back what has changed to go on"
            )

    def _clear_abandoned(self) -> None:
        for part in self.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            if time.time() - part.stat().st_mtime > ABANDONED:
                part.unlink(missing_ok=True)


def save_tensors(tensors: Tensors, path: Path, record: Mapping[str, Any] | None = None) -> None:
    """Write named tensors and a JSON record with a checksum, whole or not at all: equal content in equal bytes."""
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(dict(record or {}))
    header = {"format": FORMAT, "version": str(VERSION), "record": text, "sha256": fingerprint(text, _sorted(whole))}
    write_atomically(path, _in_order(safetensors.torch.save(whole, metadata=header)))


def load_tensors(path: Path) -> Tensors:
    """Read the tensors that `save_tensors` wrote.

    Raises:
        ValueError: not such a file, or altered.
        SafetensorError: cut short.
        KeyError: a file of another kind.
        OSError: not there.
    """
    return load_record(path)[0]


def load_record(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Read the tensors and the record that `save_tensors` wrote; see `load_tensors` for the errors.

    Raises:
        ValueError: the file was altered.
    """
    data = path.read_bytes()
    tensors = safetensors.torch.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    text = header["record"]
    if header.get("format") != FORMAT or header.get("sha256") != fingerprint(text, _sorted(tensors)):
        raise ValueError(f"{path} was altered after it was written")
    return tensors, json.loads(text)


def _in_order(data: bytes) -> bytes:
    """A safetensors file with the names in its header in order, which its writer shuffles."""
    end = 8 + int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that numbers lie where they may be mapped
    return len(text).to_bytes(8, "little") + text + data[end:]


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """The names of what is not equal, with both values where they are short."""
    if isinstance(before, dict) and isinstance(now, dict):
        if _SHOWN == before.keys() == now.keys():  # see `shown`
            if (same := before["is"] == now["is"]) and before["fingerprint"] != now["fingerprint"]:
                return [f"{name} (called {now['is']!r} in both, with another content)"]
            return [] if same else _differences(before["is"], now["is"], name)
        inner = [_differences(before.get(key), now.get(key), key) for key in {**before, **now}]
        return [f"{name}: {said}" if name else said for part in inner for said in part]
    if before == now:
        return []
    values = f"{before!r} there, {now!r} here"
    return [f"{name} ({values})" if len(values) < 80 else name]


def _close(before: Any, now: Sequence[float]) -> bool:
    if not isinstance(before, list) or len(before) != len(now):
        return False
    largest = max(map(abs, [*before, *now]), default=0.0)
    return all(math.isclose(a, b, rel_tol=0.0, abs_tol=ROUNDING * largest) for a, b in zip(before, now, strict=True))


def _sorted(things: Mapping[str, Any]) -> dict[str, Any]:
    return {name: things[name] for name in sorted(things)}
