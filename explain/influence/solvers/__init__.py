"""Ways to solve ``A x = b``: one a file, each a frozen dataclass with ``solve``, and what several share.

No target and no question may enter: a solver is given a curvature and right-hand sides. ``choice`` knows all by name.
"""
