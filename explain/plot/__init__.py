"""One kind of picture a file; every function takes ``ax=None`` and returns the Axes."""
