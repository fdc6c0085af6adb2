"""Finds a shipped file by name, or a user's own by path."""

from __future__ import annotations

from pathlib import Path

from ..errors import SimllmError, nearest_choice


def stem_names(folder: Path, suffix: str) -> tuple[str, ...]:
    """Returns the names of the shipped files of one kind, sorted."""
    return tuple(sorted(path.stem for path in folder.glob(f"*{suffix}")))


def find_entry(
    name_or_path: str | Path,
    *,
    folder: Path,
    suffix: str,
    kind: str,
    error: type[SimllmError],
) -> Path:
    """Returns the file that `name_or_path` means: an existing path first, then a shipped name.

    Names match whatever their case. kind: what to call the thing in the error.
    Raises: `error`, naming the nearest shipped name, if nothing matches.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = stem_names(folder, suffix)
    name = str(name_or_path).lower()
    if name in names:
        return folder / f"{name}{suffix}"
    nearest = nearest_choice(name.rsplit("/", 1)[-1].removesuffix(suffix), names)
    hint = "" if nearest is None else f"; did you mean {nearest!r}?"
    raise error(f"{name_or_path}: no such {kind}, neither a file nor a shipped name{hint}")
