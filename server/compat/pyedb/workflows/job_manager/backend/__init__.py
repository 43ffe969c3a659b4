"""The documented modules of the job manager."""
