"""A run on disk: every finished image at once, the state of unfinished ones by time, one process at a time.

``run.json`` says what is made and with what; ``done/000012.png`` and ``.json`` are an image and its trace;
``slots-0.safetensors`` is the state of the images under way of a worker. Each file is whole or absent, so the folder
can be resumed whenever the process is killed. Written through `engine`; read by `synthesize` when the run is complete.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from stimuli import png
from stimuli.files import atomic_write
from stimuli.provenance import sha256_bytes
from synth._run_record import difference
from synth.jobs import Made, Unfinished

FORMAT_VERSION = 1
_STATES = "slots-*.safetensors"


@contextlib.contextmanager
def on_full_disk(folder: Path) -> Iterator[None]:
    """Say of a full disk that what was made is kept, and where.

    Parameters
    ----------
    folder : Path
        The folder of the run.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    OSError
        When the disk is full.
    """
    try:
        yield
    except OSError as error:
        if errno.ENOSPC not in (error.errno, getattr(error.__cause__, "errno", None)):
            raise
        raise OSError(
            f"the disk is full; the images finished so far are kept in {str(folder)!r}: free some space and go on by "
            "--resume (resume=True in Python)"
        ) from error


def remove_run(folder: Path) -> None:
    """Remove the folder of a run whose set is saved, and what killed processes left while they were saving it.

    Parameters
    ----------
    folder : Path
        The folder of the run, named like that of the set with ``.partial`` at the end.
    """
    name = folder.name.removesuffix(".partial")
    for left in folder.parent.glob(f".{glob.escape(name)}.*"):
        if re.fullmatch(r"[0-9a-f]{12}\.(tmp|old)", left.name[len(name) + 2 :]):
            shutil.rmtree(left)
    shutil.rmtree(folder, ignore_errors=True)


class RunFolder:
    """The folder of a run, locked while it is open.

    Parameters
    ----------
    folder : path
        The folder; made if it is missing.
    record : dict
        What decides the images: model, jobs, recipe, versions. JSON.
    resume : bool
        Go on with the run that the folder holds.

    Raises
    ------
    FileExistsError
        When the folder holds a run and `resume` is False, or another process works in it.
    FileNotFoundError
        When there is nothing to resume.
    ValueError
        When the run in the folder is another one; the sentence names the first difference.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as place, RunFolder(f"{place}/run", {"steps": 2}) as run:
    ...     run.add(0, Made(np.zeros((1, 2, 2), np.uint8), 2, [(0, 0.5), (2, 1.5)]))
    ...     run.finished(), run.made(0).trace
    ({0}, [(0, 0.5), (2, 1.5)])
    """

    def __init__(self, folder: str | os.PathLike[str], record: dict[str, Any], resume: bool = False) -> None:
        self.folder = Path(folder)
        self.record = {"format_version": FORMAT_VERSION, **record}
        described = self.folder / "run.json"
        if resume and not described.is_file():
            raise FileNotFoundError(f"there is no interrupted run in {str(self.folder)!r}; start one without resuming")
        (self.folder / "done").mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._new = not described.is_file()
            if self._new:
                self._forget()
                atomic_write(described, json.dumps(self.record, indent=1))
            else:
                self._compare(resume)
                self._join_states()
        except BlockingIOError:
            self._lock.close()
            raise FileExistsError(
                f"another process is making images in {str(self.folder)!r}; wait for it, or choose another folder"
            ) from None
        except BaseException:
            self._lock.close()
            raise

    @staticmethod
    def recorded(folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Return what a run was started with.

        Parameters
        ----------
        folder : path
            The folder of the run.

        Returns
        -------
        dict
            Its record; empty when there is none that can be read.
        """
        try:
            record = json.loads((Path(folder) / "run.json").read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _compare(self, resume: bool) -> None:
        if not resume:
            raise FileExistsError(
                f"{str(self.folder)!r} holds an interrupted run; go on with it by --resume (resume=True in Python), or "
                "delete it"
            )
        old = self.recorded(self.folder)
        if not old:
            raise ValueError(f"{str(self.folder / 'run.json')!r} is damaged; delete the folder and start anew")
        if told := difference(old, json.loads(json.dumps(self.record))):
            raise ValueError(
                f"the interrupted run in {str(self.folder)!r} {told}; ask for the same to go on, or delete that folder"
            )

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, Exception) and not issubclass(kind, OSError):
            empty = not any((self.folder / "done").iterdir()) and not any(self.folder.glob(_STATES))
            if self._new and empty:  # refused before the first image: there is nothing to go on with
                shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _forget(self) -> None:
        """Remove what a run left that was killed while its folder was removed."""
        for path in (*(self.folder / "done").glob("*.*"), *self.folder.glob(_STATES)):
            path.unlink()

    def _join_states(self) -> None:
        """Put the states of an earlier process into one file, which the workers of this one do not write over."""
        old = [path for path in self.folder.glob(_STATES) if path.stem != "slots-before"]
        if old:
            self._write_states("before", self.unfinished())
            for path in old:
                path.unlink()

    def _write(self, path: Path, data: bytes | str) -> None:
        with on_full_disk(self.folder):
            atomic_write(path, data)

    def _files(self, number: int) -> tuple[Path, Path]:
        return tuple(self.folder / "done" / f"{number:06d}.{kind}" for kind in ("json", "png"))  # type: ignore[return-value]

    def add(self, number: int, made: Made) -> None:
        """Write an image and its trace; the trace comes last and says that the image is whole.

        Parameters
        ----------
        number : int
            Number of its job.
        made : Made
            The image.
        """
        record = {"step": made.step, "ended": made.ended, "restarts": made.restarts, "trace": made.trace}
        note, image = self._files(number)
        if made.codes is not None:
            data = png.encode(made.codes)
            self._write(image, data)
            record |= {"shape": made.codes.shape, "sha256": sha256_bytes(data)}
        self._write(note, json.dumps(record))

    def finished(self) -> set[int]:
        """Return the numbers of the jobs whose images are whole.

        Returns
        -------
        set of int
            Numbers of jobs; an image that was damaged since counts as not made.
        """
        return {int(note.stem) for note in (self.folder / "done").glob("*.json") if self._whole(int(note.stem))}

    def _whole(self, number: int) -> bool:
        note, image = self._files(number)
        try:
            record = json.loads(note.read_text())
            return "sha256" not in record or sha256_bytes(image.read_bytes()) == record["sha256"]
        except (OSError, ValueError):
            return False

    def made(self, number: int) -> Made:
        """Return an image made.

        Parameters
        ----------
        number : int
            Number of its job.

        Returns
        -------
        Made
            The image and its trace.
        """
        note, image = self._files(number)
        record = json.loads(note.read_text())
        codes = png.read(image, record["shape"]) if "sha256" in record else None
        trace = [(step, score) for step, score in record["trace"]]
        return Made(codes, record["step"], trace, record["ended"], record["restarts"])

    def item(self, number: int) -> Path:
        """Return the file of an image made.

        Parameters
        ----------
        number : int
            Number of its job.

        Returns
        -------
        Path
            The PNG.
        """
        return self._files(number)[1]

    def checkpoint(self, worker: int, states: dict[int, Unfinished]) -> None:
        """Write the state of a worker's images in place of its earlier one.

        Parameters
        ----------
        worker : int
            Number of the worker.
        states : dict of int to Unfinished
            By the number of the job.
        """
        self._write_states(str(worker), states)

    def _write_states(self, name: str, states: dict[int, Unfinished]) -> None:
        from safetensors.torch import save

        tensors = {f"{number}.{name}": value for number, each in states.items() for name, value in each.tensors.items()}
        numbers = json.dumps({number: each.numbers for number, each in states.items()})
        self._write(self.folder / f"slots-{name}.safetensors", save(tensors, {"numbers": numbers}))

    def unfinished(self) -> dict[int, Unfinished]:
        """Return the state of the images under way, as last written.

        Returns
        -------
        dict of int to Unfinished
            By the number of the job; a damaged file counts as none, its images begin anew.
        """
        from safetensors import SafetensorError, safe_open

        found: dict[int, Unfinished] = {}
        for path in sorted(self.folder.glob(_STATES)):
            try:
                with safe_open(path, "pt") as file:
                    numbers = json.loads(file.metadata()["numbers"])
                    tensors: dict[int, dict[str, torch.Tensor]] = {int(number): {} for number in numbers}
                    for key in file.keys():  # noqa: SIM118 (not a dict)
                        number, name = key.split(".")
                        tensors[int(number)][name] = file.get_tensor(key)
            except (SafetensorError, OSError, ValueError, KeyError, TypeError):
                continue
            for number, held in tensors.items():
                state = Unfinished(held, numbers[str(number)])
                if number not in found or found[number].numbers["step"] < state.numbers["step"]:
                    found[number] = state
        return found
