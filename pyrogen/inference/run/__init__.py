"""What every run needs: checked data, a potential and its minimiser, checkpoints, a store for draws."""
