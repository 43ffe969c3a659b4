"""The log of revisions and its watchers."""
