"""Classifier control of a generator: weights p_data / p_model of every event, and what they say (arXiv:2305.16774)."""
