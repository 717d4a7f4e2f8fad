"""Coalitions into numbers: by copies of the place, only what matters of them, or ``fast`` without the network.

No explainer, and no training, may enter: a game gives values, and what is made of them is not its affair.
"""
