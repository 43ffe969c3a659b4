"""The check for PyEDB up to 0.65, which has a job manager of its own at the documented path."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

FIRST_WITHOUT = (0, 66)


def refuse_old_pyedb() -> None:
    """Refuse to replace the job manager of a PyEDB that has one.

    Raises
    ------
    ImportError
        Names the steps for either one.
    """
    try:
        found = version("pyedb")
    except PackageNotFoundError:
        return
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers is None or (int(numbers[1]), int(numbers[2])) >= FIRST_WITHOUT:
        return
    raise ImportError(
        f"PyEDB {found} has a job manager of its own at this path, and edbjobs-pyedb has replaced its files. To use "
        'edbjobs: pip install "pyedb>=0.66", then pip install --force-reinstall --no-deps edbjobs-pyedb. To go back: '
        f"pip uninstall edbjobs-pyedb, then pip install --force-reinstall --no-deps pyedb=={found}"
    )
