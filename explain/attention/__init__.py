"""Attention: capture of the maps, ablation, rollout, and the explainer that reads them.

No family may enter: layers are known by what they compute, wherever they stand.
"""

from explain.attention.ablation import uniform
from explain.attention.capture import NothingCaptured, capture
from explain.attention.explainer import Attention
from explain.attention.maps import AttentionMap

__all__ = ["Attention", "AttentionMap", "NothingCaptured", "capture", "uniform"]
