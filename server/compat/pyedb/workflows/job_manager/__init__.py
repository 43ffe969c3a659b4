"""The documented job manager, served by edbjobs."""

from __future__ import annotations

from edbjobs_pyedb.pyedb_version import refuse_old_pyedb

refuse_old_pyedb()
