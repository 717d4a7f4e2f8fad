"""A graph as plain tensors, copies and parts of it, and the border to torch_geometric.

No network, number or player may enter: what is asked of a graph is decided above.
"""
