"""The V4 data of 2019 (Bashivan, Kar & DiCarlo, Science 364:eaav9436): the file ``npc_v4_data.h5``.

``neural/naturalistic/<monkey>/<setting>/<session>`` holds (repeat, image, site) for the images of
``images/naturalistic``; ``neural/synthetic/...`` the same for images made for that session;
``neural/curvature/<monkey>`` for those of ``images/curvature``. Spikes were counted 70 to 170 ms after onset. What the
numbers were divided by is not stated in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io._columns import site_table
from neural_fits.recordings_io._options import ReadOptions, choose, numbered, with_window

WINDOW_MS = (70.0, 170.0)
UNIT = "response (unit not stated)"


def recognizes(file: h5py.File) -> bool:
    """Tell whether a file is laid out as the data of 2019.

    Parameters
    ----------
    file : h5py.File
        The open file.

    Returns
    -------
    bool
        True if it is.
    """
    return isinstance(file.get("neural"), h5py.Group) and any(k in file for k in ("images", "target_inds"))


def read(file: h5py.File, path: Path, options: ReadOptions) -> SiteRecordings:
    """Merge all monkeys, settings and sessions of one kind of stimuli.

    Sites are keyed by monkey, setting, session and index, as in Brain-Score's ``neuroid_id`` (``m_stretch_1_0``), and
    padded with NaN to the longest session; a neuron recorded in two settings counts as two sites. Stimulus ids number
    the images of the file in their order, from 1: ``naturalistic_0001``, ``curvature_0001``, and
    ``synthetic_m_stretch_1_0001`` with monkey, setting and session, since every session has its own. A session with
    fewer naturalistic images than the others has shown the first ones.

    Parameters
    ----------
    file : h5py.File
        The open file.
    path : Path
        Its place, for messages and for what lies beside it.
    options : ReadOptions
        `dataset`: naturalistic, synthetic or curvature.

    Returns
    -------
    SiteRecordings
        The recordings.

    Raises
    ------
    ValueError
        If an option is missing or of no use, or the file is not laid out as described.
    """
    options.refuse(("axes",), path, "its layout (npc_v4_data.h5) is known")
    kind = choose(options.dataset, sorted(file["neural"]), path, "kinds of stimuli")
    sessions = list(_sessions(file["neural"][kind]))
    if not sessions:
        raise ValueError(f"{path.name!r} holds no responses under 'neural/{kind}'; download the file again.")
    for where, data in sessions:
        if data.ndim != 3:
            raise ValueError(
                f"{'/'.join(('neural', kind, *where))!r} of {path.name!r} has shape {data.shape}; (repeat, image, "
                "site) is expected."
            )
        _check_images(file, kind, where, data.shape[1], path)
    names = [numbered(image_prefix(kind, where), data.shape[1]) for where, data in sessions]
    ids = list(dict.fromkeys(name for part in names for name in part))
    position = {name: i for i, name in enumerate(ids)}
    n_repeats = max(data.shape[0] for _, data in sessions)
    responses = np.full((len(ids), n_repeats, sum(d.shape[2] for _, d in sessions)), np.nan, dtype=np.float32)
    done = 0
    for part, (_, data) in zip(names, sessions, strict=True):
        rows = [position[name] for name in part]
        responses[rows, : data.shape[0], done : done + data.shape[2]] = np.moveaxis(data[()], 0, 1)
        done += data.shape[2]
    site_ids, columns = _sites(file, sessions, path)
    recordings = SiteRecordings(
        responses,
        tuple(ids),
        site_table(site_ids, columns),
        window_ms=WINDOW_MS,
        unit=UNIT,
        meta={"source": "npc_v4_data.h5", "dataset": kind},
    )
    return with_window(recordings, options.window_ms, path)


def image_prefix(kind: str, where: tuple[str, ...]) -> str:
    """Return what the numbers of images are appended to; only synthetic images belong to a session.

    Parameters
    ----------
    kind : str
        The kind of images.
    where : tuple of str
        Monkey, setting and session.

    Returns
    -------
    str
        The beginning of the stimulus ids.
    """
    return "_".join((kind, *map(_short, where))) if kind == "synthetic" else kind


def image_arrays(file: h5py.File, kind: str) -> Iterator[tuple[tuple[str, ...], h5py.Dataset]]:
    """Yield the arrays of images of one kind, each with the session it belongs to.

    Parameters
    ----------
    file : h5py.File
        The open file.
    kind : str
        The kind of images.

    Yields
    ------
    tuple of (tuple of str, h5py.Dataset)
        Monkey, setting and session (empty where all share the images), and the images (image, height, width[, 3]).
    """
    node = file.get(f"images/{kind}")
    if isinstance(node, h5py.Dataset):
        yield (), node
    elif node is not None:
        yield from _sessions(node)


def _sessions(node: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], h5py.Dataset]]:
    if isinstance(node, h5py.Dataset):
        yield where, node
        return
    for name in sorted(node):
        yield from _sessions(node[name], (*where, name))


def _check_images(file: h5py.File, kind: str, where: tuple[str, ...], shown: int, path: Path) -> None:
    images = dict(image_arrays(file, kind)).get(where if kind == "synthetic" else ())
    there = None if images is None else images.shape[0]
    if there is not None and (shown > there or (kind == "synthetic" and shown != there)):
        raise ValueError(
            f"{'/'.join((kind, *where))!r} of {path.name!r} has responses to {shown} images, but there are {there}; "
            "download the file again."
        )


def _short(name: str) -> str:
    return name.removeprefix("monkey_").removeprefix("session_")


def _sites(
    file: h5py.File, sessions: list[tuple[tuple[str, ...], h5py.Dataset]], path: Path
) -> tuple[list[str], dict[str, Any]]:
    ids: list[str] = []
    columns: dict[str, list[Any]] = {name: [] for name in ("animal", "setting", "session", "neuroid_index")}
    targets: list[NDArray[np.bool_] | None] = []
    for where, data in sessions:
        count = data.shape[2]
        ids += ["_".join((*map(_short, where), str(i))) for i in range(count)]
        for name, value in zip(("animal", "setting", "session"), (*where, None, None)[:3], strict=True):
            columns[name] += [value] * count
        columns["neuroid_index"] += range(count)
        targets.append(_targets(file, where, count, path))
    kept = {name: values for name, values in columns.items() if any(v is not None for v in values)}
    if all(t is not None for t in targets):
        kept["is_target"] = np.concatenate([t for t in targets if t is not None]).tolist()
    return ids, kept


def _targets(file: h5py.File, where: tuple[str, ...], count: int, path: Path) -> NDArray[np.bool_] | None:
    node = file.get("/".join(("target_inds", *where)))
    if not isinstance(node, h5py.Dataset):
        return None
    chosen = np.ravel(node[()]).astype(np.intp)
    if chosen.size and not (chosen.min() >= 0 and chosen.max() < count):
        raise ValueError(
            f"{'/'.join(('target_inds', *where))!r} of {path.name!r} names site {int(chosen.max())} of {count}; "
            "download the file again."
        )
    return np.isin(np.arange(count), chosen)
