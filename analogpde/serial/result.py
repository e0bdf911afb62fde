"""What a solve gives back: the answer, how it ended, and what it took."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from analogpde.cost import Ledger
from analogpde.errors import AnalogError
from analogpde.refine.record import SolveLog, SolveRecord, Step, larger
from analogpde.refine.status import Status

_OPTION = re.compile(r"(?<![\w-])-(?:ksp|pc)?_?analog_(\w+)|(?<![\w-])-ksp_(rtol|max_it)\b")

_PETSC = {"-ksp_divtol times": "1e4 times", ", or raise -ksp_divtol": "", "A singular matrix without MatSetNullSpace":
          "A singular matrix", "(MatSetNullSpace)": "(ground an unknown: give its row a 1 on the diagonal)"}


def in_python(text: str) -> str:
    """Return a message with the options that it names written as arguments of `solve`."""
    for said, meant in _PETSC.items():
        text = text.replace(said, meant)

    def argument(match: re.Match[str]) -> str:
        if match[2]:
            return {"rtol": "rtol=", "max_it": "max_iterations="}[match[2]]
        return f"{match[1]}="

    return _OPTION.sub(argument, text)


class NotConverged(AnalogError):
    """A solve that did not reach its tolerance.

    Args:
        result: what was reached.
    """

    def __init__(self, result: Result) -> None:
        self.result = result
        super().__init__(f"{result.status.name} after {result.statistics.iterations} iterations, relative residual "
                         f"{result.statistics.relative_residual:.2e}. {result.advice}")


@dataclass(frozen=True)
class Statistics:
    """What a solve took; with several right-hand sides the worst figures and the sums of counts.

    Args:
        records: one for each right-hand side.
        operations: counts of all of them, and of programming if this solve did it.
        forward_estimate: largest estimate of ‖x − A⁻¹b‖₂/‖A⁻¹b‖₂; infinite where nothing could be said.
        seconds_program, seconds_solve: wall time of the emulation, not of a chip.
        description: the tiles, level by level.
        digital_parts: what of the corrections is digital, in words; '' if nothing.
    """

    records: list[SolveRecord]
    operations: Ledger
    forward_estimate: float
    seconds_program: float
    seconds_solve: float
    description: str
    digital_parts: str

    @property
    def worst(self) -> SolveRecord:
        """The first right-hand side that failed, else the one with the most iterations."""
        failed = [record for record in self.records if not record.converged]
        return failed[0] if failed else max(self.records, key=lambda record: record.iterations)

    @property
    def iterations(self) -> int:
        """Outer iterations of the worst right-hand side."""
        return self.worst.iterations

    @property
    def history(self) -> list[Step]:
        """The steps of the worst right-hand side."""
        return self.worst.history

    @property
    def relative_residual(self) -> float:
        """Largest true ‖b − A x‖₂/‖b‖₂."""
        return _largest([record.relative_residual for record in self.records])

    @property
    def backward_error(self) -> float:
        """Largest ‖b − A x‖₂/(‖A‖ ‖x‖₂ + ‖b‖₂), ‖A‖ from below by its largest row."""
        return _largest([record.backward_error for record in self.records])


def _largest(values: list[float]) -> float:
    out = values[0]
    for value in values[1:]:
        out = larger(value, out)
    return out


@dataclass(frozen=True)
class Result:
    """The answer of `solve`.

    Args:
        x: shape of b. It is the best that the loop came to, also if that is not good enough: look at `status`.
        status: how the worst right-hand side ended.
        statistics: what it took.
        chip: the machine, as plain data.
    """

    x: NDArray[Any]
    status: Status
    statistics: Statistics
    chip: dict[str, Any]

    @property
    def value(self) -> NDArray[Any]:
        """The answer, x."""
        return self.x

    @property
    def converged(self) -> bool:
        """Whether every right-hand side reached its tolerance."""
        return self.status.code > 0

    @property
    def advice(self) -> str:
        """What the status means and what to try."""
        return in_python(self.statistics.worst.advice)

    def report(self, *paths: str | Path) -> None:
        """Write the convergence report to FILE.json, .html or .txt.

        Raises:
            AnalogError: a file cannot be written, or its ending is none of these.
        """
        from analogpde.report import build, write  # only when a report is wanted

        log = SolveLog(chip=self.chip)
        for record in self.statistics.records:
            log.add(record)
        report = build(log, {"name": "solve", "title": "analogpde.solve"})
        for path in paths:
            write(report, str(path))

    def __str__(self) -> str:
        s = self.statistics
        count = f", {len(s.records)} right-hand sides" if len(s.records) > 1 else ""
        lines = [f"{self.status.name} after {s.iterations} iterations{count}: relative residual "
                 f"{s.relative_residual:.2e}, backward error {s.backward_error:.2e}, estimated forward error "
                 f"{s.forward_estimate:.1e}", in_python(s.description)]
        if not self.converged:
            lines.insert(1, self.advice)
        o = s.operations
        lines.append(f"{o.inv_shots} INV shots, {o.mvm_shots} MVM shots, {o.adc_conversions} ADC conversions, "
                     f"{o.cells_written} cells written")
        return "\n".join(lines)

    __repr__ = __str__
