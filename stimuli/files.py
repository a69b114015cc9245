"""Files that are either whole or absent: atomic folders and files, and names that stay inside their folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath


def _sentence(error: OSError, what: str, path: Path) -> OSError:
    # Keeps the subclass (PermissionError, NotADirectoryError, ...) so that callers can still tell them apart.
    reason = (error.strerror or str(error)).lower()
    return type(error)(f"Cannot {what} {path}: {reason}; choose a location that can be written.")


def _make_parents(folder: Path) -> list[Path]:
    """Create the missing parents and return them, outermost first."""
    made: list[Path] = []
    missing = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        made.append(path)
    return made


def require_free(path: str | os.PathLike[str], overwrite: bool, is_ours: Callable[[Path], bool]) -> None:
    """
    Raise unless a folder may be written at `path`: call it before long work.

    Parameters
    ----------
    path : path
        The folder to make.
    overwrite : bool
        Whether an existing, non-empty folder may be replaced.
    is_ours : callable
        Takes the existing folder and says whether it is of the kind that may be replaced.

    Raises
    ------
    FileExistsError
        If `path` is a file, or a non-empty folder that may not be replaced.
    OSError
        If the location cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     require_free(f"{place}/new", overwrite=False, is_ours=lambda old: False)
    """
    target = Path(path).resolve()
    nearest = next(folder for folder in (target, *target.parents) if folder.exists())
    if nearest == target:
        if not target.is_dir():
            raise FileExistsError(f"{target} is a file: choose another folder name.")
        if any(target.iterdir()):
            if not overwrite:
                raise FileExistsError(
                    f"{target} exists and is not empty: choose another folder, or replace it with --overwrite "
                    "(overwrite=True in Python)."
                )
            if not is_ours(target):
                raise FileExistsError(
                    f"{target} holds something else than what would replace it: choose another folder."
                )
    elif not nearest.is_dir():
        raise NotADirectoryError(f"Cannot write {target}: {nearest} is a file; choose a location that can be written.")
    if not os.access(nearest, os.W_OK):
        raise PermissionError(f"Cannot write {target}: permission denied; choose a location that can be written.")


def made_of(*names: str) -> Callable[[Path], bool]:
    """
    Return a test whether a folder holds nothing but these names, so that replacing it deletes nobody's files.

    Parameters
    ----------
    *names : str
        Names of the files and folders that a writer makes.

    Returns
    -------
    callable
        Takes a folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     made_of("model.json")(Path(place))
    True
    """
    return lambda folder: {entry.name for entry in folder.iterdir()} <= set(names)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], overwrite: bool, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """
    Build a folder under a temporary sibling name and rename it when it is complete.

    On any error inside the block the temporary folder is removed and what was at `path` before is untouched. An
    existing folder is moved aside and deleted only after the new one is in place.

    Parameters
    ----------
    path : path
        The folder to make; missing parents are created.
    overwrite : bool
        Whether an existing, non-empty folder may be replaced.
    is_ours : callable
        Takes the existing folder and says whether it is of the kind that may be replaced.

    Yields
    ------
    Path
        The temporary folder to write into.

    Raises
    ------
    FileExistsError
        If `path` is a file, or a non-empty folder that may not be replaced.
    OSError
        If the location cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with atomic_folder(f"{place}/new", overwrite=False, is_ours=lambda old: False) as folder:
    ...         _ = (folder / "a.txt").write_text("whole")
    ...     print((Path(place) / "new" / "a.txt").read_text())
    whole
    """
    target = Path(path).resolve()
    require_free(target, overwrite, is_ours)
    made: list[Path] = []
    temporary = target.parent / f".{target.name}.{secrets.token_hex(6)}.tmp"
    try:
        made = _make_parents(target.parent)
        temporary.mkdir()
    except OSError as error:
        _remove_empty(made)
        raise _sentence(error, "write", target) from error
    try:
        yield temporary
        try:
            _swap(temporary, target)
        except OSError as error:
            raise _sentence(error, "replace", target) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(made)
        raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _swap(temporary: Path, target: Path) -> None:
    aside = target.parent / f".{target.name}.{secrets.token_hex(6)}.old"
    had_old = target.exists()
    if had_old:
        target.rename(aside)
    try:
        temporary.rename(target)
    except BaseException:
        if had_old:
            aside.rename(target)
        raise
    if had_old:
        shutil.rmtree(aside, ignore_errors=True)


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """
    Write a file under a temporary sibling name and rename it when it is complete.

    Parameters
    ----------
    path : path
        The file to write; its folder must exist.
    data : bytes or str
        The content; text is written as UTF-8 with its line ends as they are.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    OSError
        If the location cannot be written; an older file of that name is then untouched.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     atomic_write(f"{place}/note.txt", "whole").read_text()
    'whole'
    """
    target = Path(path)
    content = data.encode("utf-8") if isinstance(data, str) else data
    temporary = target.parent / f".{target.name}.{secrets.token_hex(6)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise _sentence(error, "write", target) from error
        raise
    return target


def safe_name(name: str) -> PurePosixPath:
    """
    Refuse a name that is not relative or that climbs out of its folder.

    Parameters
    ----------
    name : str
        A relative name with forward slashes.

    Returns
    -------
    PurePosixPath
        The name as a relative path; the disk is not looked at.

    Raises
    ------
    ValueError
        If the name is empty, absolute, or holds ``..``, a backslash or a drive.

    Examples
    --------
    >>> safe_name("images/a.png").parts
    ('images', 'a.png')
    >>> safe_name("../a.png")
    Traceback (most recent call last):
    ...
    ValueError: The name '../a.png' leaves its folder: give a relative name without '..' and backslashes.
    """
    pure = PurePosixPath(name)
    outside = not pure.parts or pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name
    if outside or PureWindowsPath(name).drive:
        raise ValueError(f"The name {name!r} leaves its folder: give a relative name without '..' and backslashes.")
    return pure


def safe_member(folder: str | os.PathLike[str], name: str) -> Path:
    """
    Join a name from a manifest to its folder, refusing every name that leaves the folder.

    Parameters
    ----------
    folder : path
        The folder that the manifest describes.
    name : str
        A relative name with forward slashes.

    Returns
    -------
    Path
        ``folder / name``; it need not exist.

    Raises
    ------
    ValueError
        If the name is empty, absolute, holds ``..`` or a backslash, or reaches outside through a symbolic link.

    Examples
    --------
    >>> safe_member("set", "images/a.png").as_posix()
    'set/images/a.png'
    """
    base = Path(folder)
    path = base.joinpath(safe_name(name))
    if not path.resolve().is_relative_to(base.resolve()):
        raise ValueError(f"The name {name!r} leaves its folder through a symbolic link: copy the file into the folder.")
    return path
