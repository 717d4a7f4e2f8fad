"""Diffusers pipelines: their own call, made on a copy with stand-ins for the parts that are to be watched or changed.

In order: ``stand_ins``, ``prompts`` (words), ``call`` (the user's own call for many rows), ``watched`` (what its
network is asked and how branches are joined), ``number``, ``games`` and ``sources`` (pictures that the call is given),
``target``; of single steps ``coder`` (the VAE), ``asked`` (the network with the call's own arguments), ``inside`` and
``pictures``; ``model``.
"""
