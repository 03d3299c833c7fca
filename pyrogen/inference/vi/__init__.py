"""Variational inference: objectives, and the loop that trains them."""
