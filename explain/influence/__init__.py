"""Influence functions: which training examples are behind a number (Koh and Liang 2017)."""
