"""A table of numbers that grows with every time step, as a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from mpi4py import MPI

from analogpde.errors import InvalidInput
from analogpde.fem.arguments import on_root


class Series:
    """Rows of numbers by name, kept on every rank and written by rank 0. Collective.

    Args:
        comm: its ranks add the same rows.
        path: the CSV file; None: no file.
        last: continue the file's rows up to this one, one for each step from 0, and forget later ones; None: begin a
            new file.
    """

    def __init__(self, comm: MPI.Comm, path: Path | None, last: Mapping[str, float] | None = None) -> None:
        self.comm, self.path = comm, path
        self.rows: list[dict[str, float]] = []
        if path is not None and last is not None:
            self.rows = on_root(comm, lambda: _read(path, last))
        self._written = 0

    def add(self, row: Mapping[str, float]) -> None:
        """Add a row; the file follows at the next flush, or after a hundred rows."""
        self.rows.append(dict(row))
        if len(self.rows) - self._written >= 100:
            self.flush()

    def flush(self) -> None:
        """Bring the file up to date."""
        if self.path is not None:
            on_root(self.comm, self._write)
        self._written = len(self.rows)

    def _write(self) -> None:
        path = self.path
        assert path is not None
        if not self.rows:
            return
        try:
            if self._written:
                with path.open("a", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows(row.values() for row in self.rows[self._written:])
                return
            # In one go, so that the rows of an earlier run are never lost in between.
            beside = path.with_name(path.name + ".partial")
            with beside.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(self.rows[0])
                writer.writerows(row.values() for row in self.rows)
            os.replace(beside, path)
        except OSError as problem:
            raise InvalidInput("-out", str(path), "a file that can be written", f"{problem.strerror}.") from None


def _read(path: Path, last: Mapping[str, float]) -> list[dict[str, float]]:
    remedy = (f"Put {path.name} back, or begin anew from the checkpoint's state: -initial CHECKPOINT.npz -out "
              "ANOTHER_FOLDER.")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        # A kill may have left half a row at the end, never before the last flush.
        rows = [{name: int(text) if text.isdigit() else float(text) for name, text in row.items()}
                for row in found if None not in row.values()]
        kept = [row for row in rows if row["step"] <= last["step"]]
    except FileNotFoundError:
        raise InvalidInput("-restart", str(path), "a folder with the run's table beside its checkpoint",
                           remedy) from None
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise InvalidInput("-restart", str(path), f"a table that can be read ({problem})", remedy) from None
    if [row["step"] for row in kept] != list(range(int(last["step"]) + 1)):
        raise InvalidInput("-restart", str(path), f"a row for each step from 0 to {last['step']}, the checkpoint's, "
                           "which changes since the start are measured by", remedy)
    if kept[-1] != last:
        raise InvalidInput("-restart", str(path), f"the table of the checkpoint's own run: in step {last['step']} they "
                           "differ", remedy)
    return kept
