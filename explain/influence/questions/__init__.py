"""What else may be asked of influence functions (Koh and Liang 2017): one question a file.

No solver is written here: each comes from ``solvers``, mostly in the `Inverse` of an `Influence`.
"""
