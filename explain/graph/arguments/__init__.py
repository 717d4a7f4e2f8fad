"""What forward is given: found once, when a model is wrapped, and proved where it can be."""
