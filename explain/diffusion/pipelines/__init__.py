"""Diffusers pipelines: their own call, made on a copy with stand-ins for the parts that are to be watched or changed.

In order: ``stand_ins``, ``prompts`` (words), ``call`` (the user's own call, for many rows), ``watched`` (what its
network is asked and how branches are joined), ``tracing`` (the call made once, and what it foresees), ``reading``
(which tokens are whose), ``number``, ``games`` and ``sources`` (who plays), ``target``; for a single step ``asked``,
``coder``, ``pictures`` and ``inside``, and for a real picture's noise ``inverting``; ``model``.
"""
