"""Everything that knows what a graph is.

From below to above, where each may use what stands before it and nothing that comes after:

- ``tensors``: a graph as plain tensors, and the border to torch_geometric;
- ``players``: who plays, and what absent means;
- ``hooks``: what is switched in the user's layers while they are called, and put back;
- ``arguments``: what the user's forward is given;
- ``network``, with ``state`` and ``findings``: the user's network, and what was found out about it;
- ``number``: what the network says in edited copies, read as one number; ``meanings``: what its outputs mean;
- ``place``: the least part of a graph that answers as the whole does;
- ``games``: coalitions into numbers;
- ``training``: how the number hangs on the training graph;
- ``reading``: other ways to read the same number;
- ``targets``: the verbs, each handed to a room; ``model``: wrapped once, the doors to targets.
"""
