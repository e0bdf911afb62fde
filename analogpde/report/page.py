"""The report as one self-contained HTML page: style, figures and pictures inside, nothing from a network."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from analogpde.errors import AnalogError
from analogpde.refine.target import BACKWARD_ERROR
from analogpde.report import costs, figures, words
from analogpde.report.model import Report, Solve

NO_FIGURES = ("This page has no figures because Matplotlib could not be imported where it was made: "
              "pip install matplotlib, then make the page again from the .json report: "
              "python -m analogpde report FILE.json -o FILE.html")

_KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Args:
        address: the picture itself as a data: address; '' if it could not be read.
        caption: what it shows, or why it is missing.
    """

    address: str
    caption: str


def to_html(report: Report, folder: Path | None = None) -> str:
    """Return the report as an HTML page.

    Args:
        report: the report.
        folder: where relative picture paths are looked for besides the current folder.

    Raises:
        AnalogError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise AnalogError("HTML reports need jinja2: pip install jinja2 (or write .json or .txt)") from None
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    for function in (words.count, words.amount, words.scientific, words.signed, words.seconds, words.general,
                     words.physical, words.failure, words.digital_warning, words.summary, words.solve_title,
                     words.forward_verdict, words.against, words.tolerance_words):
        environment.filters[function.__name__] = function
    environment.filters["slug"] = lambda index: f"solve-{index}"
    template = environment.from_string(files("analogpde.report").joinpath("report.html.j2").read_text(encoding="utf-8"))
    drawn = figures.available()
    problem = report.problem
    return template.render(
        report=report,
        problem=problem,
        title=problem.get("title") or problem.get("name") or "A PETSc program",
        verdict=words.verdict(report),
        succeeded=words.succeeded(report),
        chip_line=words.chip_line(report),
        chip_fields=words.chip_fields(report.chip),
        facts=_facts(report),
        figures=[_figures(solve, index) if drawn else [] for index, solve in enumerate(report.solves)],
        iterations=_markup(figures.iterations(report, "iterations")) if drawn else "",
        no_figures="" if drawn else NO_FIGURES,
        pictures=[_picture(entry, folder) for entry in problem.get("pictures", [])],
        operations=words.OPERATIONS,
        cost_title=costs.title(report.cost) if report.cost else "",
        cost_caution=costs.CAUTION,
        cost_rows=costs.rows(report.cost) if report.cost else [],
        cost_figure=_markup(figures.cost(report, "cost")) if drawn and report.cost else "",
        times=_times(report),
        backward_limit=BACKWARD_ERROR,
    ) + "\n"


def _facts(report: Report) -> list[tuple[str, str, str]]:
    """Return label, figure and remark of what a reader wants first."""
    facts = [("unknowns", words.count(report.unknowns), f"{report.ranks} {'rank' if report.ranks == 1 else 'ranks'}")]
    if report.solves:
        most = max(solve.iterations for solve in report.solves)
        facts.append(("outer iterations", words.count(most),
                      "largest of all solves" if report.count > 1 else "of the solve"))
        errors = [solve.backward_error for solve in report.solves]
        largest = None if None in errors else max(error for error in errors if error is not None)
        facts.append(("backward error", words.scientific(largest), words.against(largest, BACKWARD_ERROR, "2⁻²⁴")))
    verified = [solve for solve in report.solves if solve.verified]
    if verified:
        worst = max(verified, key=lambda solve: math.inf if solve.forward_error is None else solve.forward_error)
        native = f"native FP32: {words.scientific(worst.forward_error_fp32)}"
        facts.append(("forward error", words.scientific(worst.forward_error),
                      "" if worst.forward_error_fp32 is None else native))
    counts = report.totals.operations
    tiles = f"{words.count(counts.tiles_programmed)} tiles programmed"
    reuse = [solve.tile_use["reuse_factor"] for solve in report.solves if solve.tile_use]
    tiles += f", reuse factor {max(reuse):.3g}" if reuse else ""
    return [*facts, ("INV shots", words.count(counts.inv_shots), tiles)]


def _figures(solve: Solve, index: int) -> list[tuple[Any, str]]:
    """Return figure and caption of each figure of one prefix."""
    which = "" if solve.count == 1 else (
        " Shown is the first solve that failed." if solve.failures else " Shown is the solve with the most iterations.")
    pairs = [
        (figures.residual_history(solve, f"residual-{index}"),
         "True relative residual and size of the correction after each outer iteration." + which),
        (figures.bits_gained(solve, f"bits-{index}"),
         "Bits by which each outer iteration reduced the residual; a negative bar is a step that lost some." + which),
    ]
    return [(_markup(figure), caption) for figure, caption in pairs if figure]


def _markup(text: str) -> Any:
    """Return a figure as text that needs no escaping: its labels were escaped when it was drawn."""
    import markupsafe

    return markupsafe.Markup(text)


def _times(report: Report) -> list[tuple[str, float, float]]:
    """Return name, seconds and share in percent of each part of the wall time."""
    totals = report.totals
    parts = [("assemble", totals.seconds_assemble), ("program", totals.seconds_program),
             ("solve", totals.seconds_solve)]
    whole = sum(value for _, value in parts)
    return [(name, value, 100 * value / whole if whole else 0.0) for name, value in parts]


def _picture(entry: str | dict[str, Any], folder: Path | None) -> Picture:
    """Return a picture of the problem with its bytes in the page; one that cannot be read becomes a sentence."""
    name = entry if isinstance(entry, str) else entry["path"]
    path = Path(name)
    caption = (entry.get("caption") if isinstance(entry, dict) else None) or path.stem.replace("_", " ")
    if folder is not None and not path.is_absolute() and not path.exists():
        path = folder / path
    try:
        data = path.read_bytes()
    except OSError as error:
        return Picture("", f"The picture {name} could not be read: {error.strerror or error}.")
    for signature, kind in _KINDS.items():
        if data.startswith(signature):
            return Picture(f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}", caption)
    return Picture("", f"The picture {name} is neither PNG nor JPEG.")
