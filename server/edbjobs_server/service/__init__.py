"""One process, assembled from the other packages."""
