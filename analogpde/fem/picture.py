"""PNG pictures of results, drawn off screen on rank 0 with matplotlib alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dolfinx import fem
from mpi4py import MPI
from numpy.typing import NDArray

from analogpde.fem.render import View, render
from analogpde.fem.surface import Surface, extract

DPI = 150
GREY = "#444444"


@dataclass(frozen=True)
class Curve:
    """A line of a plot.

    Args:
        x, y: the points.
        label: for the legend.
        style: matplotlib's format string.
    """

    x: Sequence[float] | NDArray
    y: Sequence[float] | NDArray
    label: str = ""
    style: str = "-"


def available() -> bool:
    """Return whether matplotlib can be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of so many inches."""
    # Made without pyplot: no window system is looked for, and nothing global is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def colour_bar(figure: Any, axes: Any, colours: str, limits: tuple[float, float], label: str, *, ticks: int = 6,
               **place: Any) -> None:
    """Add a colour bar to `axes`."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(ScalarMappable(Normalize(*limits), colours), ax=axes, **place)
    bar.locator = MaxNLocator(ticks)
    bar.update_ticks()
    bar.set_label(label, color=GREY)
    bar.outline.set_visible(False)


def _limits(values: NDArray, symmetric: bool) -> tuple[float, float]:
    """Return the ends of the colour bar for `values`."""
    low, high = float(values.min()), float(values.max())
    if symmetric:
        high = max(abs(low), abs(high))
        low = -high
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _place(axes: Any, picture: NDArray, caption: str) -> None:
    axes.imshow(picture, interpolation="antialiased")
    axes.set_axis_off()
    axes.set_title(caption, fontsize=10, color=GREY)


def solid(path: Path, function: fem.Function, *, title: str, label: str, views: Sequence[tuple[str, View]],
          colours: str = "plasma", keep: Callable[[NDArray], NDArray] | None = None,
          history: Sequence[Curve] = (), history_labels: tuple[str, str] = ("", "")) -> None:
    """Draw a function on the surface of a 3-D mesh from one or more sides. Collective.

    Args:
        path: the PNG file.
        function: a scalar function on a mesh of tetrahedra.
        title: of the picture.
        label: of the colour bar, with the unit.
        views: caption and view of every panel.
        colours: name of matplotlib's colour map.
        keep: see `surface.extract`; None: the whole body.
        history: curves of a plot beside the views.
        history_labels: of its axes.
    """
    surface = extract(function, keep)
    if surface is None:
        return
    import matplotlib

    limits = _limits(surface.values, False)
    pictures = [render(surface, matplotlib.colormaps[colours], limits, view) for _, view in views]
    ratios = [picture.shape[1] / picture.shape[0] for picture in pictures]
    height = 4.6
    plot_width = 4.4 if history else 0.0
    width = height * 0.8 * sum(ratios) + plot_width + 1.4
    figure = new_figure(width, height)
    figure.set_layout_engine("constrained", w_pad=0.1)
    panels = figure.subplots(1, len(views) + bool(history), squeeze=False,
                             width_ratios=[*ratios, *([plot_width / (height * 0.8)] if history else [])])[0]
    for axes, picture, (caption, _) in zip(panels, pictures, views, strict=False):
        _place(axes, picture, caption)
    colour_bar(figure, list(panels[: len(views)]), colours, limits, label, location="right", shrink=0.8, pad=0.02,
               aspect=28)
    if history:
        _curves(panels[-1], history, history_labels)
    figure.suptitle(title, fontsize=13)
    figure.savefig(path)


def _curves(axes: Any, curves: Sequence[Curve], labels: tuple[str, str]) -> None:
    for curve in curves:
        axes.plot(curve.x, curve.y, curve.style, label=curve.label or None, linewidth=1.6)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if any(curve.label for curve in curves):
        axes.legend(frameon=False, fontsize=9)


def _joined(surface: Surface) -> tuple[NDArray, NDArray, NDArray]:
    """Return points, triangles and values of a plane surface, corners of cells merged: lines join across cells."""
    points, joined = np.unique(surface.corners.reshape(-1, 3)[:, :2], axis=0, return_inverse=True)
    values = np.zeros(len(points))
    values[joined] = surface.values.ravel()
    return points, joined.reshape(-1, 3), values


def plane(path: Path, function: fem.Function, *, title: str, label: str, colours: str = "viridis",
          symmetric: bool = False, unit: str = "m") -> None:
    """Draw a function on a plane mesh of triangles. Collective.

    Args:
        path: the PNG file.
        function: a scalar function.
        title, label: of the picture and of the colour bar.
        colours: name of matplotlib's colour map.
        symmetric: zero is in the middle of the colour bar.
        unit: of the coordinates.
    """
    surface = extract(function)
    if surface is None:
        return
    points, triangles, values = _joined(surface)
    limits = _limits(values, symmetric)
    size = np.ptp(points, axis=0)
    height = 5.0
    figure = new_figure(min(max(height * size[0] / size[1], 2.6), 9.0) + 1.6, height)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    axes.tripcolor(points[:, 0], points[:, 1], triangles, values, shading="gouraud", cmap=colours, vmin=limits[0],
                   vmax=limits[1])
    if values.max() > values.min():
        axes.tricontour(points[:, 0], points[:, 1], triangles, values, levels=10, colors="white", linewidths=0.5,
                        alpha=0.6)
    axes.set_aspect("equal")
    axes.set_xlabel(f"x ({unit})" if unit else "x")
    axes.set_ylabel(f"y ({unit})" if unit else "y")
    axes.spines[:].set_visible(False)
    colour_bar(figure, axes, colours, limits, label, shrink=0.9, pad=0.02)
    axes.set_title(title, fontsize=11, pad=12)
    figure.savefig(path)


def globes(path: Path, panels: Sequence[tuple[fem.Function, str, str]], *, title: str, view: View | None = None,
           colours: str = "RdBu_r") -> None:
    """Draw functions on the sphere, one globe each with its own colour bar. Collective.

    Args:
        path: the PNG file.
        panels: function, caption, label of the colour bar.
        title: of the picture.
        view: where the eye is.
        colours: name of matplotlib's colour map; zero is in its middle.
    """
    surfaces = [extract(function) for function, _, _ in panels]
    if any(surface is None for surface in surfaces):
        return
    import matplotlib

    figure = new_figure(4.6 * len(panels), 5.9)
    figure.set_layout_engine("constrained", h_pad=0.12)
    for axes, surface, (_, caption, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], surfaces, panels,
                                                  strict=True):
        assert isinstance(surface, Surface)
        limits = _limits(surface.values, True)
        _place(axes, render(surface, matplotlib.colormaps[colours], limits, view or View(-30.0, 25.0), smooth=True,
                            lines=False), caption)
        colour_bar(figure, axes, colours, limits, label, location="bottom", shrink=0.75, pad=0.03, aspect=30)
    figure.suptitle(title, fontsize=13)
    figure.savefig(path)


def panels(path: Path, functions: Sequence[tuple[fem.Function, str]], *, title: str, label: str,
           seen: Sequence[float], view: View, keep: Callable[[NDArray], NDArray] | None = None,
           symmetric: bool = False) -> None:
    """Draw functions side by side, each with its own colour bar: a plane mesh as it is, a body as `keep` cuts it.

    Collective.

    Args:
        path: the PNG file.
        functions: each with its caption.
        title: of the picture.
        label: of the colour bars.
        seen: a plane mesh is shown up to these coordinates.
        view: where the eye is, of a body.
        keep: see `surface.extract`.
        symmetric: zero is in the middle of the colour bars.
    """
    surfaces = [extract(function, keep) for function, _ in functions]
    if any(surface is None for surface in surfaces):
        return
    import matplotlib

    flat = len(seen) == 2
    colours = "RdBu_r" if symmetric else "viridis"
    columns = min(3, len(functions)) if len(functions) != 4 else 4
    rows = -(-len(functions) // columns)
    figure = new_figure(3.4 * columns + 0.4, 3.5 * rows + 0.5)
    figure.set_layout_engine("constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, surface, (_, caption) in zip(places, surfaces, functions, strict=False):
        assert isinstance(surface, Surface)
        limits = _limits(surface.values, symmetric)
        if flat:
            points, triangles, values = _joined(surface)
            axes.tripcolor(points[:, 0], points[:, 1], triangles, values, shading="gouraud", cmap=colours,
                           vmin=limits[0], vmax=limits[1])
            axes.set_xlim(max(points[:, 0].min(), -seen[0]), min(points[:, 0].max(), seen[0]))
            axes.set_ylim(max(points[:, 1].min(), -seen[1]), min(points[:, 1].max(), seen[1]))
            axes.set_aspect("equal")
            axes.spines[:].set_visible(False)
            axes.tick_params(labelsize=8)
            axes.set_title(caption, fontsize=10, color=GREY)
        else:
            _place(axes, render(surface, matplotlib.colormaps[colours], limits, view), caption)
        colour_bar(figure, axes, colours, limits, label, ticks=4, location="bottom", shrink=0.75, pad=0.03,
                   aspect=30)
    for axes in places[len(functions):]:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=13)
    figure.savefig(path)


def lines(comm: MPI.Comm, path: Path, curves: Sequence[Curve], *, title: str, labels: tuple[str, str]) -> None:
    """Draw curves. Only rank 0 draws.

    Args:
        comm: only its rank 0 draws.
        path: the PNG file.
        curves: what to draw.
        title: of the picture.
        labels: of the axes.
    """
    if comm.rank != 0:
        return
    figure = new_figure(7.2, 4.4)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    _curves(axes, curves, labels)
    axes.set_title(title, fontsize=11)
    figure.savefig(path)
