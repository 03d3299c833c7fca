"""How many events a generator is worth: against the truth [D], and without it."""
