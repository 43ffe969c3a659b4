"""The documented configuration of a job, and its translation to and from the contract's.

The REST API and the wheel for PyEDB use it. Its keys, defaults and words are those of the documented job manager; the
rest of the service knows only `edbjobs.config.JobConfig`.
"""
