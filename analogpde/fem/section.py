"""PNG pictures of fields in a vertical section, from nodal values on a rectangular grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analogpde.fem.picture import GREY, colour_bar, new_figure


def contours(path: Path, panels: Sequence[tuple[NDArray, NDArray, NDArray, str]], *, levels: NDArray, title: str,
             label: str, seen: tuple[float, float], colours: str, across: bool = False, mirror: bool = False) -> None:
    """Draw filled contours of one field at several times. Not collective: for rank 0.

    Args:
        path: the PNG file.
        panels: of each x (columns,), z (rows,) in km, values (rows, columns), caption.
        levels: of the contours; values outside take the colours of the ends.
        title, label: of the picture and of the colour bar.
        seen: the panels end at this x and z in km.
        colours: name of matplotlib's colour map.
        across: the panels are side by side, not one above the other.
        mirror: show also what is on the other side of x = 0, which is the same.
    """
    count, width = len(panels), seen[0] * (2 if mirror else 1)
    if across:
        figure = new_figure(min(3.4 * width / seen[1], 3.0) * count + 1.4, 4.6)
    else:
        figure = new_figure(7.0, (6.0 * seen[1] / width) * count + 0.8)
    figure.set_layout_engine("constrained")
    places = figure.subplots(*((1, count) if across else (count, 1)), squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (x, z, values, caption) in zip(places, panels, strict=True):
        if mirror:
            x, values = np.concatenate([-x[:0:-1], x]), np.hstack([values[:, :0:-1], values])
        axes.contourf(x, z, values, levels=levels, cmap=colours, extend="both")
        axes.contour(x, z, values, levels=levels, colors=GREY, linewidths=0.4, linestyles="solid")
        axes.set_xlim(-seen[0] if mirror else 0.0, seen[0])
        axes.set_ylim(0.0, seen[1])
        axes.set_aspect("equal")
        axes.tick_params(labelsize=8)
        axes.set_title(caption, fontsize=10, color=GREY)
    for axes in places if across else places[-1:]:
        axes.set_xlabel("x (km)")
    for axes in places[:1] if across else places:
        axes.set_ylabel("z (km)")
    colour_bar(figure, list(places), colours, (float(levels[0]), float(levels[-1])), label, shrink=0.8, pad=0.02)
    figure.suptitle(title, fontsize=12)
    figure.savefig(path)
