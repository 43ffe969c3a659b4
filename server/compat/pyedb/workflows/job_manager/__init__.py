"""The documented job manager, served by edbjobs."""

from __future__ import annotations

from edbjobs_server.facade.pyedb import refuse_old_pyedb

refuse_old_pyedb()
