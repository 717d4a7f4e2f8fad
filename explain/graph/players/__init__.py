"""Who plays on a graph, what each player owns, what absent means, and what that changes in a copy.

No network may enter: players are read off a place, and what they are worth is asked elsewhere.
"""
