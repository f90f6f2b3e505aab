"""Training and measuring of the miniature network; its files are in `scripts/miniature`."""
