"""The contract's messages and errors, and the core's values they stand for."""
