"""Backends that follow Adam to a mode of the posterior: ensembles and Laplace's approximation."""
