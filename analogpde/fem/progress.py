"""A progress bar on rank 0: a bar on a terminal, a few lines in a file."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from mpi4py import MPI

WIDTH = 32
REDRAW_SECONDS = 0.1
LINES = 4
"""Lines printed over the whole run when the output is not a terminal."""


class Progress:
    """Counts steps towards a known total. Not collective.

    Args:
        comm: only its rank 0 prints.
        total: number of steps.
        label: what is being stepped.
        stream: where to print (default: standard error, so that reports can be piped).
    """

    def __init__(self, comm: MPI.Comm, total: int, label: str, stream: TextIO | None = None) -> None:
        self.total, self.label = max(total, 1), label
        self._stream = (stream or sys.stderr) if comm.rank == 0 else None
        self._terminal = self._stream is not None and self._stream.isatty()
        self._start = time.monotonic()
        self._drawn = 0.0
        self.done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None and self._terminal and self._drawn:
            self._stream.write("\n")
            self._stream.flush()

    def step(self, note: str = "") -> None:
        """Count one step.

        Args:
            note: a few words on the state, shown behind the bar.
        """
        self.done += 1
        if self._stream is None:
            return
        now = time.monotonic()
        last = self.done >= self.total
        if self._terminal:
            if last or now - self._drawn > REDRAW_SECONDS:
                self._drawn = now
                self._stream.write("\r" + self._bar(now, note).ljust(99)[:99])
                self._stream.flush()
        elif last or self.done * LINES // self.total > (self.done - 1) * LINES // self.total:
            elapsed = now - self._start
            self._stream.write(f"{self.label}: {self.done} of {self.total}, {elapsed:.1f} s  {note}".rstrip() + "\n")
            self._stream.flush()

    def _bar(self, now: float, note: str) -> str:
        """Return the bar as one line of text."""
        fraction = min(self.done / self.total, 1.0)
        elapsed = now - self._start
        left = elapsed * (1 - fraction) / fraction
        filled = round(WIDTH * fraction)
        time_text = f"{elapsed:.0f} s" if fraction == 1 else f"{left:.0f} s left"
        return f"{self.label} [{'#' * filled}{'.' * (WIDTH - filled)}] {self.done}/{self.total}  {time_text}  {note}"
