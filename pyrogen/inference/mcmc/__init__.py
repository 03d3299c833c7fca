"""Markov chains: the contract of a kernel, the loop around it, and the samplers."""
