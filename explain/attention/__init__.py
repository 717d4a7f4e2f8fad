"""Attention maps: capture, rollout, and the explainer that reads them."""
