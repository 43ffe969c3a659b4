"""The example projects: setups in AEDT's own text form, without geometry."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "projects"


def example_names() -> tuple[str, ...]:
    """Names of the examples."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.aedt")))


def example_project(dest: Path, name: str = "patch_antenna") -> Path:
    """Copy an example project.

    Parameters
    ----------
    dest : Path
        Folder to copy into; made if absent.
    name : str
        One of `example_names`; default ``patch_antenna``.

    Returns
    -------
    Path
        The new project file. A file that is there already is replaced.

    Raises
    ------
    ValueError
        There is no example of that name.
    """
    if name not in example_names():
        raise ValueError(f"no example project {name!r}; there are {', '.join(example_names())}")
    dest.mkdir(parents=True, exist_ok=True)
    target = dest / f"{name}.aedt"
    target.write_bytes((_FOLDER / target.name).read_bytes())
    return target
