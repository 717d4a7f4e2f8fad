"""Every explainer on one representative of each kind of model, beside brute force: ``python -m models.matrix``."""
