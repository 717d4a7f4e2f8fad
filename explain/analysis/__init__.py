"""Readings that are not credit: what a network does, beside who is behind one number of it.

One subject a file; each says how it was proved, and nothing here hands out credit to players.
"""

from explain.analysis.diffusivity import Diffusivity, diffusivity
from explain.analysis.energy import Energy, best_diffusivity, energy

__all__ = ["Diffusivity", "Energy", "best_diffusivity", "diffusivity", "energy"]
