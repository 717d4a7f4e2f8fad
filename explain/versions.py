"""The versions that every explanation carries, and by which stored work is known to be its own."""

import importlib.metadata
import platform
from functools import cache

DISTRIBUTIONS = {"explain": "explain-models"}  # where a package is installed under another name than it is imported by


@cache
def versions() -> dict[str, str]:
    """Versions of what an answer hangs on."""
    found = {"python": platform.python_version()}
    for name in ("explain", "torch", "torch_geometric", "captum", "shap", "lime", "numpy"):
        try:
            found[name] = importlib.metadata.version(DISTRIBUTIONS.get(name, name))
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a source tree, or an optional package left out
    return found
