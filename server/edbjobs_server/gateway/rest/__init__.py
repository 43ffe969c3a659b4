"""The documented REST routes."""
