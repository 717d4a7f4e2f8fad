"""Other ways to read the same number: as a gradient, as a copy of the module, with others, from noise.

No coalition may enter: those are ``games``.
"""
