"""Where solves run: the local host and, each in a module of its own, the clusters' schedulers."""
