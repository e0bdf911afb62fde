"""The report as data: what the JSON file holds and what the text and the page are made from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from analogpde.cost.ledger import Ledger
from analogpde.report.schema import SCHEMA, check


@dataclass(frozen=True)
class HistoryRow:
    """One outer iteration of the worst solve; None stands for a value that was not finite.

    Args:
        iteration: 0 is the initial guess.
        relative_residual: true ‖b − A x‖₂/‖b‖₂ in FP64.
        correction: ‖x_k − x_{k−1}‖₂/‖x_k‖₂.
        bits_gained: −log₂ of the residual's reduction in this step.
        inv_shots: INV shots since the solve began, on all ranks.
    """

    iteration: int
    relative_residual: float | None
    correction: float | None
    bits_gained: float | None
    inv_shots: int


@dataclass(frozen=True)
class Solve:
    """All solves of one options prefix.

    Single figures describe the worst solve (the first that failed, else the one with the most iterations); residual
    and errors are the largest seen. None stands for a value that was not finite, or that nobody measured.

    Args:
        prefix: options prefix of the KSP ('' if none).
        count: number of solves.
        failures: how many of them did not converge.
        iterations: outer iterations, the largest of all solves.
        iterations_min, iterations_max, iterations_total: over all solves.
        converged_reason: PETSc's name of the worst solve's reason.
        advice: what the reason means and what to try.
        relative_residual: largest final ‖b − A x‖₂/‖b‖₂.
        relative_residual_fp32: relative residual at which the worst solve's backward error is 2⁻²⁴.
        backward_error: largest final ‖b − A x‖/(‖A‖ ‖x‖ + ‖b‖).
        verified: whether a reference solve measured forward errors.
        forward_error: largest ‖x − x₆₄‖₂/‖x₆₄‖₂.
        forward_error_fp32: the same for a native float32 solve.
        history: every outer iteration of the worst solve.
        seconds_setup, seconds_solve: wall time of all solves together.
        unknowns: global number of unknowns.
        preconditioner: PETSc's type name.
        digital: whether no tile took part in the corrections.
        digital_parts: what of the corrections is digital though tiles take part; '' if nothing.
        description: lines that describe the preconditioner, as -ksp_view prints them.
        operations: counts of all solves together.
        tile_use: limit, patches, tiles, shared, turning and reuse_factor of a chip with few tiles (the fields of
            `analogpde.cost.TileUse`); None if the chip has no limit.
    """

    prefix: str
    count: int
    failures: int
    iterations: int
    iterations_min: int
    iterations_max: int
    iterations_total: int
    converged_reason: str
    advice: str
    relative_residual: float | None
    relative_residual_fp32: float | None
    backward_error: float | None
    verified: bool
    forward_error: float | None
    forward_error_fp32: float | None
    history: list[HistoryRow]
    seconds_setup: float
    seconds_solve: float
    unknowns: int
    preconditioner: str
    digital: bool
    digital_parts: str
    description: str
    operations: Ledger
    tile_use: dict[str, float] | None = None

    @property
    def iterations_mean(self) -> float:
        """Mean number of outer iterations of a solve."""
        return self.iterations_total / max(self.count, 1)

    @property
    def converged(self) -> bool:
        """True if no solve failed."""
        return self.failures == 0


@dataclass(frozen=True)
class Totals:
    """The whole run: operation counts of every solve, and wall times.

    Args:
        operations: counts, summed over solves and ranks.
        seconds_assemble: assembly of matrices and vectors, as the program measured it.
        seconds_program: partition and programming of tiles.
        seconds_solve: refinement loops.
    """

    operations: Ledger = field(default_factory=Ledger)
    seconds_assemble: float = 0.0
    seconds_program: float = 0.0
    seconds_solve: float = 0.0


@dataclass(frozen=True)
class Report:
    """A convergence report; `as_dict` is the JSON document that `schema.json` describes.

    Args:
        problem: what the program says of itself: name, title, parameters, results, files, pictures.
        options: options of the run that concern analogpde.
        chip: the chip, as `Chip.as_dict` gives it; empty if no chip took part.
        ranks: MPI ranks.
        unknowns: unknowns of the largest solve.
        solves: one entry per options prefix.
        totals: operation counts and times of the whole run.
        environment: versions, machine, date and command line.
        cost: estimates of `analogpde.cost.estimate`; None without tiles.
        schema: name and version of this format.
    """

    problem: dict[str, Any]
    options: dict[str, str]
    chip: dict[str, Any]
    ranks: int
    unknowns: int
    solves: list[Solve]
    totals: Totals
    environment: dict[str, Any]
    cost: dict[str, Any] | None = None
    schema: str = SCHEMA

    @property
    def failures(self) -> int:
        """Solves that did not converge."""
        return sum(solve.failures for solve in self.solves)

    @property
    def count(self) -> int:
        """Solves of the run."""
        return sum(solve.count for solve in self.solves)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON data, in the order in which people read it."""
        totals = dataclasses.asdict(self.totals)
        return {
            "schema": self.schema,
            "problem": self.problem,
            "options": self.options,
            "chip": self.chip,
            "ranks": self.ranks,
            "unknowns": self.unknowns,
            "solves": [dataclasses.asdict(solve) for solve in self.solves],
            "totals": {**totals.pop("operations"), **totals},
            "environment": self.environment,
            "cost": self.cost,
        }

    @staticmethod
    def from_dict(data: Any) -> Report:
        """Build a report from JSON data; fields of a later writer that are not known here are ignored.

        Raises:
            InvalidInput: the data is not an analogpde-report/1.
        """
        check(data)
        solves = [
            Solve(**{
                **_known(Solve, entry),
                "history": [HistoryRow(**_known(HistoryRow, row)) for row in entry["history"]],
                "operations": Ledger(**_known(Ledger, entry["operations"])),
            })
            for entry in data["solves"]
        ]
        totals = Totals(**{**_known(Totals, data["totals"]), "operations": Ledger(**_known(Ledger, data["totals"]))})
        return Report(**{**_known(Report, data), "solves": solves, "totals": totals})


def _known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `data` that are fields of the dataclass `kind`."""
    names = {item.name for item in dataclasses.fields(kind)}
    return {name: value for name, value in data.items() if name in names}


def plain(value: Any) -> Any:
    """Return `value` as strict JSON data: NumPy values as numbers and lists, paths as text, NaN and infinity as null.

    A problem script fills in what it has at hand; no odd value may cost the user the report of a long run.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if callable(getattr(value, "tolist", None)):
        return plain(value.tolist())
    return str(value)


def finite(value: float | None) -> float | None:
    """Return `value` as a float, or None if it is NaN or infinite: strict JSON has no word for them."""
    return None if value is None or not math.isfinite(value) else float(value)


def within_tolerance(result: Mapping[str, Any]) -> bool | None:
    """Return whether |value − expected| ≤ tolerance, or None where the result states no expectation."""
    expected, tolerance, value = result.get("expected"), result.get("tolerance"), result.get("value")
    if not isinstance(expected, int | float) or not isinstance(tolerance, int | float):
        return None
    if not isinstance(value, int | float):
        return False
    return abs(value - expected) <= tolerance
