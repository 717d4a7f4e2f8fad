"""Which explainers fit a question, over which players, at what cost, and which to ask first."""

from explain.discovery.asking import explainers
from explain.discovery.table import Explainers, Fit, Refused

__all__ = ["Explainers", "Fit", "Refused", "explainers"]
