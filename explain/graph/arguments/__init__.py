"""What forward is given: found once, when a model is wrapped, and proved where it can be.

Nothing that is asked of the model later may enter: a call is read here, never a prediction.
"""
