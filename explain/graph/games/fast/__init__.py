"""Stacks of linear aggregation, evaluated without the module: one pass over many coalitions, coalitions innermost."""
