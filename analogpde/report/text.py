"""The report as text: what is read on a terminal after the run."""

from __future__ import annotations

import dataclasses
import textwrap

from analogpde.refine.target import BACKWARD_ERROR
from analogpde.report import costs, words
from analogpde.report.model import HistoryRow, Report, Solve

WIDTH = 100
LABEL = 18
"""Column at which the values of labelled lines begin."""

ROWS_ALL, ROWS_FIRST, ROWS_LAST = 15, 8, 5
DESCRIPTION_LINES = 10


def to_text(report: Report) -> str:
    """Return the report as text of at most 100 columns (a longer word, such as a path, is never cut)."""
    problem = report.problem
    title = problem.get("title") or problem.get("name") or "a PETSc program"
    lines = ["=" * WIDTH, *_wrap(f"Convergence report: {title}", WIDTH), "=" * WIDTH]
    lines += _labelled("chip", words.chip_line(report))
    lines += _labelled("system", f"{words.count(report.unknowns)} unknowns on {words.count(report.ranks)} "
                                 f"{'rank' if report.ranks == 1 else 'ranks'}")
    if problem.get("parameters"):
        lines += _labelled("parameters", ", ".join(
            f"{name} = {words.general(value)}" for name, value in problem["parameters"].items()))
    if report.options:
        lines += _labelled("options", " ".join(f"-{name} {value}".rstrip() for name, value in report.options.items()))
    for solve in report.solves:
        lines += ["", *_solve(solve, counts=len(report.solves) > 1)]
    lines += ["", _rule("whole run")]
    lines += _operations(report)
    totals = report.totals
    lines += _labelled("wall time", f"assemble {words.seconds(totals.seconds_assemble)}   "
                                    f"program {words.seconds(totals.seconds_program)}   "
                                    f"solve {words.seconds(totals.seconds_solve)}")
    if report.cost:
        lines += ["", _rule(costs.title(report.cost)), *_wrap(costs.CAUTION, WIDTH)]
        for label, words_of_it in costs.rows(report.cost):
            lines += _labelled(label, words_of_it)
        lines.append("")
    lines += _results(report)
    if problem.get("files"):
        lines += _labelled("files", problem["files"][0])
        for name in problem["files"][1:]:
            lines += _labelled("", name)
    versions = report.environment["versions"]
    lines += _labelled("made with", ", ".join(f"{name} {value}" for name, value in versions.items() if value)
                       + f"; {report.environment['date']}")
    mark = "" if words.succeeded(report) else "!!!! "
    lines += ["", *_wrap(f"{mark}{words.verdict(report)}", WIDTH)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _solve(solve: Solve, counts: bool) -> list[str]:
    """Return the lines of one options prefix, with its operation counts where they are not those of the whole run."""
    lines = [_rule(words.solve_title(solve))]
    for banner in (words.failure(solve), words.digital_warning(solve)):
        if banner:
            lines += [f"!!!! {line}" for line in _wrap(banner, WIDTH - 5)]
    if solve.count > 1:
        which = "first that failed" if solve.failures else "one with the most iterations"
        lines += _wrap(f"{words.summary(solve)}. History and reason: the {which}. Residual and errors: the largest. "
                       "Counts and times: the sums.", WIDTH)
    lines += _history(solve.history)
    lines += _labelled("reason", solve.converged_reason)
    if solve.advice:
        lines += _labelled("", solve.advice)
    lines += _labelled("residual", f"{words.scientific(solve.relative_residual)}   true, relative to b")
    lines += _labelled("backward error", f"{words.scientific(solve.backward_error)}   "
                                         f"{words.against(solve.backward_error, BACKWARD_ERROR, '2⁻²⁴')}")
    if solve.verified:
        native = "not available" if solve.forward_error_fp32 is None else words.scientific(solve.forward_error_fp32)
        lines += _labelled("forward error", f"analog {words.scientific(solve.forward_error)}  |  native FP32 {native}  "
                                            "|  FP64: the reference")
        lines += _labelled("", words.forward_verdict(solve))
    else:
        lines += _labelled("forward error", "not verified: no FP64 reference solve was made")
    lines += _labelled("preconditioner", f"{solve.preconditioner}{' (digital)' if solve.digital else ''}, "
                                         f"{words.count(solve.unknowns)} unknowns")
    lines += _description(solve.description)
    if counts:
        lines += _labelled("operations", _counts(solve))
    lines += _labelled("wall time", f"program {words.seconds(solve.seconds_setup)}   "
                                    f"solve {words.seconds(solve.seconds_solve)}")
    return lines


def _history(history: list[HistoryRow]) -> list[str]:
    """Return the table of the history; the middle of a long one is left out and says so."""
    if not history:
        return ["  no iteration was recorded"]
    lines = [f"  {'iteration':>9}  {'true relative residual':>22}  {'correction':>10}  {'bits gained':>11}  "
             f"{'INV shots':>12}"]
    rows = [_row(row) for row in history]
    if len(rows) > ROWS_ALL:
        hidden = len(rows) - ROWS_FIRST - ROWS_LAST
        middle = f"  {'…':>9}  {hidden} iterations not shown; a .json or .html report lists all"
        rows = [*rows[:ROWS_FIRST], middle, *rows[-ROWS_LAST:]]
    return lines + rows


def _row(row: HistoryRow) -> str:
    """Return one line of the history; the initial guess has no correction."""
    start = row.iteration == 0
    unknown = start or (row.correction is None and row.relative_residual is not None)  # a KSP that is not ours
    correction = "-" if unknown else words.scientific(row.correction)
    bits = "-" if start else words.signed(row.bits_gained)
    return (f"  {row.iteration:>9}  {words.scientific(row.relative_residual):>22}  {correction:>10}  {bits:>11}  "
            f"{words.count(row.inv_shots):>12}")


def _description(text: str) -> list[str]:
    """Return the lines that describe the preconditioner, at most ten of them."""
    lines = text.rstrip().splitlines()
    hidden = len(lines) - DESCRIPTION_LINES
    if hidden > 0:
        lines = [*lines[:DESCRIPTION_LINES], f"… {hidden} more lines in the .json or .html report"]
    return [" " * LABEL + part for line in lines for part in _wrap(line, WIDTH - LABEL, indent="    ")]


def _counts(solve: Solve) -> str:
    """Return the counts of one prefix that are not zero, in a line."""
    counts = solve.operations.as_dict()
    shown = [f"{words.OPERATIONS[name][0]} {words.amount(name, value)}" for name, value in counts.items() if value]
    return ", ".join(shown) or "none counted"


def _operations(report: Report) -> list[str]:
    """Return the operation counts of the run as a table."""
    lines = []
    for item in dataclasses.fields(report.totals.operations):
        label, meaning = words.OPERATIONS[item.name]
        value = words.amount(item.name, getattr(report.totals.operations, item.name))
        lines.append(f"  {label:<{LABEL - 2}}{value:>16}   {meaning}")
    return lines


def _results(report: Report) -> list[str]:
    """Return the physical answers with what was expected of them."""
    lines: list[str] = []
    for result in report.problem.get("results", []):
        unit = f" {result['unit']}" if result.get("unit") else ""
        text = f"{result['name']}: {words.physical(result, 'value')}{unit}"
        if result.get("expected") is not None:
            text += f"; expected {words.physical(result, 'expected')}{unit}"
            if result.get("tolerance") is not None:
                text += f" ± {words.general(result['tolerance'])}: {words.tolerance_words(result)}"
        if result.get("source"):
            text += f" [{result['source']}]"
        lines += _labelled("results" if not lines else "", text)
    return lines


def _rule(title: str) -> str:
    """Return a rule with a title in it."""
    return f"---- {_printable(title)} ".ljust(WIDTH, "-")


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    """Return `text` in lines of at most `width`, later ones indented; options, paths and numbers stay in one piece."""
    return textwrap.wrap(_printable(text), width, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False)


def _labelled(label: str, text: str) -> list[str]:
    """Return `text` wrapped, beside `label`."""
    lines = _wrap(text, WIDTH - LABEL) or [""]
    return [f"{label if index == 0 else '':<{LABEL}}{line}" for index, line in enumerate(lines)]


def _printable(text: str) -> str:
    """Return `text` without control characters: a title must not be able to drive the terminal."""
    return "".join(" " if letter in "\t\n\r" else letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}"
                   for letter in text)
