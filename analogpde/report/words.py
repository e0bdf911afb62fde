"""How numbers and names are put into words: shared by the text and the page."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

from analogpde.chip.chip import Chip
from analogpde.errors import AnalogError
from analogpde.refine.target import FORWARD_ERROR
from analogpde.report.model import Report, Solve, within_tolerance

OPERATIONS: dict[str, tuple[str, str]] = {
    "inv_shots": ("INV shots", "settlings of a closed-loop tile, one per tile and application"),
    "mvm_slices": ("MVM slices", "matrix bit slice times input bit slice, per tile-sized block"),
    "mvm_shots": ("MVM shots", "settlings of an open-loop array, one per array and application"),
    "dac_conversions": ("DAC conversions", "one per driven line"),
    "adc_conversions": ("ADC conversions", "one per read line"),
    "cells_written": ("cells written", "each polarity and slice is a cell of its own"),
    "tiles_programmed": ("tiles programmed", "first time or again"),
    "tiles_reprogrammed": ("tiles rewritten", "of these, because the first programming was unstable"),
    "host_flops": ("host flops", "in sparse products of refinement and tile multigrid"),
    "host_bytes": ("host bytes", "moved by those operations, as if nothing stayed in a cache"),
    "tiles_multiplexed": ("tiles in turn", "of the programmed: again, because the chip has too few"),
    "inv_repeats": ("INV shots repeated", "with half the input, because a line had clipped"),
    "settling_seconds": ("settling time", "of the INV shots, added up over tiles"),
    "inv_products": ("inverse products", "multiplications that products with stored inverses would take"),
    "amplifier_settlings": ("amplifier load", "lines times relative time, added up over INV shots"),
    "rounds": ("rounds", "applications of banks of tiles in sequence, added up over ranks"),
    "round_settlings": ("round load", "the longest relative time of each round, added up"),
    "rank_bytes": ("bytes sent", "between ranks"),
    "tiles_replaced": ("tiles replaced", "of these, on a spare tile: the first was too faulty"),
    "write_pulses": ("write pulses", "of the cells written, each followed by a read"),
    "pulses_in_turn": ("pulses in turn", "of each row the slowest cell's, over rows and tiles"),
    "mvm_rounds": ("MVM rounds", "settlings of the multiplier one after the other"),
    "mvm_slices_saved": ("MVM slices saved", "by progressive residuals, which do without the lowest slices"),
}
"""Label and meaning of each count of the ledger."""


def count(value: int) -> str:
    """Return a count with thousands separated: 12,345."""
    return f"{value:,}"


def amount(name: str, value: float) -> str:
    """Return the count `name` of the ledger: exact where people compare, scaled for flops and bytes."""
    if name == "settling_seconds":
        return with_unit(float(value), "s")
    if name in ("amplifier_settlings", "round_settlings"):
        return f"{value:.3g}"
    if name not in ("host_flops", "host_bytes", "rank_bytes"):
        return count(int(value))
    unit = "flop" if name == "host_flops" else "B"
    scaled = float(value)
    for prefix in ("", "k", "M", "G", "T", "P"):
        if scaled < 1000 or prefix == "P":
            break
        scaled /= 1000
    return f"{scaled:.3g} {prefix}{unit}" if prefix else f"{value} {unit}"


def scientific(value: float | None) -> str:
    """Return a residual or an error with three digits."""
    return "not finite" if value is None else f"{value:.2e}"


def signed(value: float | None) -> str:
    """Return bits gained: one decimal, with a sign, for a step may also lose bits."""
    return "not finite" if value is None else f"{value:+.1f}"


def seconds(value: float) -> str:
    """Return a wall time with about three digits."""
    if value <= 0:
        return "0 s"
    if value < 1:
        return f"{1000 * value:.3g} ms" if value < 0.9995 else "1.00 s"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def general(value: Any, digits: int = 6) -> str:
    """Return a parameter or a physical answer in a form for people, numbers of so many digits."""
    if value is None:
        return "not finite"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, list):
        return ", ".join(general(entry) for entry in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {general(entry)}" for key, entry in value.items())
    return str(value)


def physical(result: dict[str, Any], key: str) -> str:
    """Return the value or what was expected of it, to a tenth of the accepted difference at least."""
    value, tolerance = result[key], result.get("tolerance")
    digits = 6
    if tolerance and value and math.isfinite(float(value)):
        places = math.floor(math.log10(abs(float(value)))) - math.floor(math.log10(float(tolerance)))
        digits = min(max(digits, places + 2), 17)
    return general(value, digits)


def with_unit(value: Any, unit: str) -> str:
    """Return a value of the chip with its unit; small quantities get an SI prefix, 3.5e-05 S being 35 µS."""
    if not unit:
        return general(value)
    if isinstance(value, float) and 0 < abs(value) < 1:
        for prefix, scale in (("m", 1e-3), ("µ", 1e-6), ("n", 1e-9), ("p", 1e-12)):
            if abs(value) >= 0.9999995 * scale:
                return f"{general(value / scale)} {prefix}{unit}"
    return f"{general(value)} {unit}"


def chip_line(report: Report) -> str:
    """Return the chip in one line."""
    if not report.chip:
        return "not recorded" if report.totals.operations.inv_shots else "none: no tile took part in this run"
    try:
        line = Chip.from_dict(report.chip).summary()
    except AnalogError:
        # A report of a later version may describe its chip by fields that are not known here.
        line = f"{report.chip.get('name', 'unnamed')}: {report.chip.get('title', '')}".rstrip(": ")
    unused = report.solves and all(solve.digital for solve in report.solves)
    return f"{line} (NOT USED: every preconditioner was digital)" if unused else line


def chip_fields(chip: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return name, value with unit, source and confidence of each value of a chip."""
    sources = chip.get("sources") or {}
    units = _units(Chip, "")
    rows = []
    for name, value in _flat({key: entry for key, entry in chip.items() if key not in ("name", "title", "sources")}):
        source = sources.get(name)
        if not isinstance(source, dict):
            source = {}
        shown = "ideal" if value is None else with_unit(value, units.get(name, ""))
        rows.append((name, shown, str(source.get("text", "")), str(source.get("confidence", ""))))
    return rows


def _flat(data: dict[str, Any], where: str = "") -> list[tuple[str, Any]]:
    """Return dotted names and values of nested dictionaries."""
    rows: list[tuple[str, Any]] = []
    for key, value in data.items():
        rows += _flat(value, f"{where}{key}.") if isinstance(value, dict) else [(f"{where}{key}", value)]
    return rows


def _units(kind: type, where: str) -> dict[str, str]:
    """Return the unit of each field of the chip's dataclasses, by dotted name."""
    units: dict[str, str] = {}
    kinds = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        units[f"{where}{item.name}"] = item.metadata.get("unit", "")
        if dataclasses.is_dataclass(kinds[item.name]):
            units |= _units(kinds[item.name], f"{where}{item.name}.")
    return units


def solve_title(solve: Solve) -> str:
    """Return a heading for the solves of one prefix."""
    name = f"prefix '{solve.prefix}'" if solve.prefix else "no options prefix"
    return f"{'Solve' if solve.count == 1 else f'{count(solve.count)} solves'}, {name}"


def digital_warning(solve: Solve) -> str:
    """Return the sentence that keeps a digital preconditioner from being mistaken for tiles; '' if all is tiles."""
    if not solve.digital:
        return f"partly digital: {solve.digital_parts}" if solve.digital_parts else ""
    return f"digital preconditioner '{solve.preconditioner}': no tiles took part in these corrections"


def failure(solve: Solve) -> str:
    """Return the sentence that says a solve failed; '' if all converged."""
    if solve.converged:
        return ""
    steps = solve.history[-1].iteration if solve.history else solve.iterations
    reason = f"{solve.converged_reason} after {steps} iterations"
    if solve.count == 1:
        return f"NOT CONVERGED: {reason}"
    return f"NOT CONVERGED: {count(solve.failures)} of {count(solve.count)} solves; the first of them: {reason}"


def summary(solve: Solve) -> str:
    """Return how many solves there were, how they ended and how many iterations they took."""
    ended = "all converged" if solve.converged else f"{count(solve.failures)} FAILED"
    return (f"{count(solve.count)} solves, {ended}; iterations: min {solve.iterations_min}, mean "
            f"{solve.iterations_mean:.1f}, max {solve.iterations_max}")


def against(value: float | None, limit: float, power: str) -> str:
    """Return whether an error is at or below its FP32-equivalent limit."""
    if value is None:
        return ""
    return f"{'within' if value <= limit else 'ABOVE'} FP32-equivalent {power} = {limit:.2e}"


def forward_verdict(solve: Solve) -> str:
    """Return how the forward error compares with the FP32-equivalent limit and with the native FP32 solve."""
    if solve.forward_error is None:
        return ""
    words = against(solve.forward_error, FORWARD_ERROR, "2⁻²³")
    if solve.forward_error_fp32 is not None:
        better = solve.forward_error <= solve.forward_error_fp32
        words += "; not above native FP32" if better else "; ABOVE native FP32"
    return words


def tolerance_words(result: dict[str, Any]) -> str:
    """Return whether a physical answer is within its stated tolerance; '' if none is stated."""
    inside = within_tolerance(result)
    return "" if inside is None else "within tolerance" if inside else "OUTSIDE tolerance"


def succeeded(report: Report) -> bool:
    """Return whether every solve converged and every physical answer is within its stated tolerance."""
    return bool(report.solves) and not report.failures and not _outside(report)


def verdict(report: Report) -> str:
    """Return the outcome of the run in one sentence."""
    if not report.solves:
        return "no solve was recorded: did the program run with -ksp_type analog?"
    if report.failures:
        words = f"FAILED: {count(report.failures)} of {count(report.count)} solves did not converge"
    elif report.count == 1:
        words = "the solve converged"
    else:
        words = f"all {count(report.count)} solves converged"
    outside = _outside(report)
    if outside:
        words += f"; {outside} of {len(report.problem['results'])} results OUTSIDE tolerance"
    digital = [solve.digital for solve in report.solves]
    if all(digital):
        words += "; all corrections were purely digital: no tiles took part"
    elif any(digital):
        words += "; some corrections were purely digital"
    if any(solve.digital_parts for solve in report.solves):
        words += "; corrections were partly digital"
    return words


def _outside(report: Report) -> int:
    """Return how many physical answers miss their stated tolerance."""
    return sum(within_tolerance(result) is False for result in report.problem.get("results", []))
