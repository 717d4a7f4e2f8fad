"""What removing a node or an edge does to a graph network: influence held against retraining.

``python -m models.removal`` prints the table: the karate club exhaustively, a block model and Cora (from
``EXPLAIN_DATA``) by samples; then groups of edits on networks of two to four layers (`models.removal.edits`).
"""
