"""The schedulers of clusters."""
