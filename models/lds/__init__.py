"""Which scores predict retraining? Networks trained again without some of their examples, and what foretells it.

``settings`` are five networks with their data, training and questions, ``retraining`` trains each of them again on many
subsets at once, ``methods`` score, ``experiment`` compares.
"""
