"""How the number hangs on what the network was trained on: its labels, and the graph itself.

No solver may enter: the loss, its examples and its edits are told here, and `Influence` differentiates them.
"""
