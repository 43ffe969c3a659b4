"""Measures of the service beside their floors and what others reach; ``python -m bench`` in ``tests/``."""
