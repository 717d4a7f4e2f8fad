"""Panels of the gallery: each is one system at work, in a few lines that are shown beside their picture."""
