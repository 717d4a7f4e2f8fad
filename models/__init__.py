"""Small trained examples and reference implementations, one file a model, named as in its paper."""
