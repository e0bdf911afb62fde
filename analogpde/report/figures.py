"""The figures of the page: inline SVG drawn by Matplotlib, coloured by the page's style sheet."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from analogpde.report.model import HistoryRow, Report, Solve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that occur nowhere else stand for the page's variables: one SVG then serves light, dark and print.
COLOURS = {"#010203": "--ink", "#040506": "--line", "#070809": "--first", "#0a0b0c": "--second", "#0d0e0f": "--bad"}
INK, LINE, FIRST, SECOND, BAD = COLOURS

STYLE = {
    "svg.fonttype": "path", "font.size": 10.0, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": LINE, "grid.linewidth": 0.7, "lines.linewidth": 1.8, "legend.frameon": False,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}


def available() -> bool:
    """Return whether Matplotlib can be imported; it is, so ask only where figures are wanted."""
    try:
        import matplotlib.backends.backend_svg
        import matplotlib.figure
        import matplotlib.style  # noqa: F401
    except (ImportError, RuntimeError):
        # RuntimeError: reports are often written when the interpreter ends, and then no thread can be started, as some
        # versions of Matplotlib do at their first import on a machine.
        return False
    return True


def residual_history(solve: Solve, key: str) -> str:
    """Return the figure of residual and correction over outer iterations, '' if there is nothing to draw.

    Args:
        solve: the solves of one prefix.
        key: a word that no other figure of the page has.
    """
    residuals = _positive(solve.history, "relative_residual")
    corrections = _positive(solve.history, "correction")
    if len(residuals) < 2:
        return ""
    first, last = residuals[0], residuals[-1]
    label = (f"Relative residual over outer iterations, logarithmic: from {first[1]:.2e} at iteration {first[0]} to "
             f"{last[1]:.2e} at iteration {last[0]}.")
    return _draw(lambda axes: _draw_history(axes, residuals, corrections, solve.relative_residual_fp32), key, label)


def bits_gained(solve: Solve, key: str) -> str:
    """Return the figure of bits gained per outer iteration, '' if there is nothing to draw."""
    steps = [(row.iteration, row.bits_gained) for row in solve.history if row.iteration and row.bits_gained is not None]
    if not steps:
        return ""
    values = [value for _, value in steps]
    label = (f"Bits gained in each of {len(steps)} outer iterations: least {min(values):.1f}, mean "
             f"{sum(values) / len(values):.1f}, most {max(values):.1f}.")
    return _draw(lambda axes: _draw_bits(axes, steps), key, label)


def iterations(report: Report, key: str) -> str:
    """Return the figure of smallest, mean and largest number of iterations per prefix, '' without repeated solves."""
    many = [solve for solve in report.solves if solve.count > 1]
    if not many:
        return ""
    label = "Outer iterations per solve. " + " ".join(
        f"{solve.prefix or 'no prefix'}: smallest {solve.iterations_min}, mean {solve.iterations_mean:.1f}, largest "
        f"{solve.iterations_max} of {solve.count} solves." for solve in many)
    return _draw(lambda axes: _draw_iterations(axes, many), key, label, height=1.1 + 0.4 * len(many))


def cost(report: Report, key: str) -> str:
    """Return the figure of how far each constant alone moves the energy ratios, '' without estimates."""
    if not report.cost:
        return ""
    bars = report.cost["sensitivity"][:8]
    ratios = report.cost["ratios"]
    if any(value is None or value <= 0 for bar in bars for memory in ("hbm", "sram") for value in bar[memory]):
        return ""
    label = "Energy of the rival over that of the chip, constants moved one by one. " + " ".join(
        f"{bar['constant']}: GPU {min(bar['hbm']):.2g} to {max(bar['hbm']):.2g}, SRAM {min(bar['sram']):.2g} to "
        f"{max(bar['sram']):.2g}." for bar in bars)
    return _draw(lambda axes: _draw_cost(axes, bars, ratios), key, label, height=1.2 + 0.32 * len(bars))


def _draw_cost(axes: Axes, bars: list[dict[str, Any]], ratios: dict[str, float]) -> None:
    for memory, colour, shift, name in (("hbm", FIRST, -0.18, "GPU"), ("sram", SECOND, 0.18, "SRAM")):
        rows = [row + shift for row in range(len(bars))]
        low, high = ([pick(bar[memory]) for bar in bars] for pick in (min, max))
        axes.hlines(rows, low, high, color=colour, linewidth=6, alpha=0.6, label=f"against {name}")
        axes.axvline(ratios[f"energy_{memory}"], color=colour, linewidth=1.2)
    axes.axvline(1.0, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_yticks(range(len(bars)), [bar["constant"].replace("_", " ") for bar in bars], parse_math=False)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlabel("energy of the rival / energy of the chip")
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)


def _positive(history: list[HistoryRow], name: str) -> list[tuple[int, float]]:
    """Return iteration and value where a logarithm exists."""
    pairs = [(row.iteration, getattr(row, name)) for row in history]
    return [(iteration, value) for iteration, value in pairs if value is not None and value > 0]


def _draw_history(axes: Axes, residuals: list[tuple[int, float]], corrections: list[tuple[int, float]],
                  limit: float | None) -> None:
    marker = "o" if len(residuals) <= 40 else ""
    axes.semilogy(*zip(*residuals, strict=True), color=FIRST, marker=marker, markersize=4, label="relative residual")
    if corrections:
        axes.semilogy(*zip(*corrections, strict=True), color=SECOND, marker=marker.replace("o", "s"), markersize=3.5,
                      linestyle="--", linewidth=1.2, label="correction")
    if limit is not None:
        axes.axhline(limit, color=INK, linestyle=":", linewidth=1.2, label="backward error $2^{-24}$ (FP32)")
    axes.set_xlabel("outer iteration")
    _whole_numbers(axes)
    axes.legend(loc="best", fontsize=9)


def _draw_bits(axes: Axes, steps: list[tuple[int, float]]) -> None:
    colours = [FIRST if value >= 0 else BAD for _, value in steps]
    axes.bar([iteration for iteration, _ in steps], [value for _, value in steps], color=colours, width=0.8)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    # One bar alone would fill the figure.
    axes.set_xlim(0.4, max(steps[-1][0], 6) + 0.6)
    axes.set_xlabel("outer iteration")
    axes.set_ylabel("bits gained")
    _whole_numbers(axes)
    axes.grid(visible=False, axis="x")


def _draw_iterations(axes: Axes, solves: list[Solve]) -> None:
    names = [_short(solve.prefix or "no prefix") for solve in solves]
    rows = list(range(len(solves)))
    axes.hlines(rows, [solve.iterations_min for solve in solves], [solve.iterations_max for solve in solves],
                color=FIRST, linewidth=7, alpha=0.35, label="smallest to largest")
    axes.plot([solve.iterations_mean for solve in solves], rows, color=FIRST, marker="o", linestyle="", label="mean")
    # parse_math off: an options prefix is a name, never a formula.
    axes.set_yticks(rows, names, parse_math=False)
    axes.set_ylim(len(solves) - 0.5, -0.5)
    axes.set_xlim(0, 1.1 * max(1, *(solve.iterations_max for solve in solves)))
    axes.set_xlabel("outer iterations")
    _whole_numbers(axes)
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)


def _whole_numbers(axes: Axes) -> None:
    """Let the ticks of the iteration axis stand at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))


def _short(name: str) -> str:
    """Return a name that leaves room for the axes."""
    return name if len(name) <= 18 else f"{name[:17]}…"


def _draw(draw: Callable[[Axes], None], key: str, label: str, height: float = 3.0) -> str:
    """Return what `draw` puts on the axes of a new figure as an inline SVG element."""
    import matplotlib.style
    from matplotlib.figure import Figure

    # The user's matplotlibrc, figures and back end stay out of it, and are left as they were.
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        # A prefix may have letters that the font has not: the figure shows boxes, its label and the page the letters.
        warnings.filterwarnings("ignore", message=".*missing from font.*")
        figure = Figure(figsize=(5.0, height), layout="constrained")
        draw(figure.add_subplot())
        stream = io.StringIO()
        figure.savefig(stream, format="svg")
    return _inline(stream.getvalue(), key, label)


def _inline(svg: str, key: str, label: str) -> str:
    """Return Matplotlib's SVG file as an element of an HTML page.

    Identifiers get a prefix (several figures share one page), colours become the page's variables, and whatever is
    for a file of its own (prologue, metadata with web addresses, a style sheet that would reach the page) goes.
    """
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box is not None
    body = svg[svg.index(">", svg.index("<svg")) + 1:]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'\b(id="|href="#)', rf"\g<1>{key}-", body).replace("url(#", f"url(#{key}-")
    for colour, variable in COLOURS.items():
        body = body.replace(colour, f"var({variable})")
    text = escape(label)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{text}"><title>{text}</title>{body.strip()}'
