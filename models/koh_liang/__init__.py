"""The experiments of Koh and Liang 2017 ("Understanding Black-box Predictions via Influence Functions").

Each is a function that answers with what it measured, and with its rows of the table of `models.koh_liang.rows`.
Where the paper's data is not to be had offline, other data stands in, and the row says which.
"""
