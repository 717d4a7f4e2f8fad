"""The least part of a graph that answers as the whole does, and the proof that it does.

No game may enter: a place is chosen by asking the number, whoever plays there.
"""
