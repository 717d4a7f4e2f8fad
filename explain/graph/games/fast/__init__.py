"""Stacks of linear aggregation, evaluated without the module: one pass over many coalitions, coalitions innermost.

No answer of the network may enter, but in ``admission``, which holds a program against it; README.md says why.
"""
