"""Ways to solve ``A x = b``: one a file, each a frozen dataclass with ``solve``."""
