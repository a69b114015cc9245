"""Progress for people: a bar with rate and time left on a terminal, plain lines elsewhere, nothing when quiet.

Everything goes to standard error, so standard output stays free for results. Used by the command line and the demo.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_LONGEST_SILENCE_S = 300.0


class Progress:
    """Report named stages, and steps within a stage.

    Parameters
    ----------
    quiet : bool
        Say nothing.

    Examples
    --------
    >>> with Progress(quiet=True) as progress:
    ...     progress.stage("fitting sites")
    ...     progress.step(1, 2)
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Bar | None = None
        self._began = self._stage_began = time.monotonic()
        self._said = 0.0
        self._next_line = self._began + _LONGEST_SILENCE_S
        self._text = ""

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=14),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                TextColumn("{task.fields[status]}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            if kind is None:
                self._finish_stage()
            self._bar.stop()

    def stage(self, text: str) -> None:
        """Begin a stage.

        Parameters
        ----------
        text : str
            What is done now, in a few words.
        """
        self._stage_began = time.monotonic()
        self._said, self._text = 0.0, text
        self._next_line = self._stage_began + _LONGEST_SILENCE_S
        if self.quiet:
            return
        if self._bar is None:
            sys.stderr.write(f"[{self._stage_began - self._began:5.0f} s] {text}\n")
            return
        self._finish_stage()
        self._bar.add_task(text, total=None, rate="", status="")

    def step(self, done: int, total: int, status: object = "") -> None:
        """Report how far the stage has come.

        Parameters
        ----------
        done, total : int
            Steps done and steps in all.
        status : object
            Its text is shown beside.
        """
        if self.quiet:
            return
        spent = time.monotonic() - self._stage_began
        rate = done / spent if spent > 0 else 0.0
        if self._bar is not None:
            task = self._bar.task_ids[-1]
            self._bar.update(task, completed=done, total=total, rate=f"{rate:.0f} steps/s", status=status)
        elif done and (done / total >= self._said + 0.25 or done == total or time.monotonic() > self._next_line):
            self._said, self._next_line = done / total, time.monotonic() + _LONGEST_SILENCE_S
            left = spent / done * (total - done)
            words = f"; {status}" if str(status) else ""
            sys.stderr.write(f"          {done / total:4.0%} of {self._text}, {left:.0f} s left{words}\n")

    def _finish_stage(self) -> None:
        if self._bar is not None and self._bar.task_ids:
            task = self._bar.tasks[-1]
            self._bar.update(task.id, total=task.total or 1, completed=task.total or 1)
