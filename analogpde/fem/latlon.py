"""Maps of the sphere in longitude and latitude, and animations of them, with matplotlib and Pillow alone.

Every pixel is a point of the sphere whose cell is known exactly, so nothing special happens at the date line or at
the poles.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import basix
import numpy as np
from numpy.typing import NDArray

from analogpde.errors import InvalidInput
from analogpde.fem.picture import GREY, available, colour_bar, new_figure
from analogpde.fem.sphere import curved_icosphere, locate

FRAMES_PER_SECOND = 12


class Sampler:
    """Interpolates nodal values of the icosphere on a grid of longitudes and latitudes. Not collective: for rank 0.

    Args:
        level: of the icosphere.
        degree: of the elements, 1 or 2.
        rows: pixels from pole to pole; twice as many around.
    """

    def __init__(self, level: int, degree: int, rows: int = 240) -> None:
        step = np.pi / rows
        self.latitude = np.pi / 2 - step * (np.arange(rows) + 0.5)
        self.longitude = -np.pi + step * (np.arange(2 * rows) + 0.5)
        longitude, latitude = np.meshgrid(self.longitude, self.latitude)
        directions = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude),
                               np.sin(latitude)], axis=-1).reshape(-1, 3)
        self._nodes, self._weights = self.at(level, degree, directions)

    @staticmethod
    def at(level: int, degree: int, directions: NDArray) -> tuple[NDArray, NDArray]:
        """Return nodes and interpolation weights (count, functions) at unit vectors (count, 3)."""
        points, cells = curved_icosphere(level)
        which, corners = locate(level, directions)
        geometry = basix.create_element(basix.ElementFamily.P, basix.CellType.triangle, 2,
                                        basix.LagrangeVariant.equispaced)
        element = basix.create_element(basix.ElementFamily.P, basix.CellType.triangle, degree,
                                       basix.LagrangeVariant.equispaced)
        position = corners[:, 1:].copy()
        normal = np.argmin(np.abs(directions), axis=1)
        across = np.cross(directions, np.eye(3)[normal])
        frame = np.stack([across, np.cross(directions, across)], axis=1)  # both at right angles to the direction
        for _ in range(4):  # Newton: the point of the curved cell that lies in this direction
            table = np.asarray(geometry.tabulate(1, position), dtype=float)[..., 0]
            flat = np.einsum("ptx,pfx->pft", frame, points[cells[which]])
            miss = np.einsum("pf,pft->pt", table[0], flat)
            slope = np.einsum("dpf,pft->ptd", table[1:], flat)
            position -= np.linalg.solve(slope, miss[..., None])[..., 0]
        count = 3 if degree == 1 else 6
        return cells[which][:, :count], np.asarray(element.tabulate(0, position), dtype=float)[0, :, :, 0]

    def __call__(self, values: NDArray) -> NDArray:
        """Return the map (rows, 2·rows), north at the top, of nodal values in the order of the icosphere's nodes."""
        grid = np.einsum("pf,pf->p", self._weights, values[self._nodes])
        return grid.reshape(len(self.latitude), len(self.longitude))


@dataclass(frozen=True)
class Panel:
    """One map.

    Args:
        values: as `Sampler` returns them.
        caption: above the map.
        label: of the colour bar.
        colours: matplotlib's colour map.
        symmetric: zero is in the middle of the colour bar.
        contours: another map whose contour lines are drawn, or None.
        limits: ends of the colour bar; None: those of the values.
    """

    values: NDArray
    caption: str
    label: str
    colours: str = "RdBu_r"
    symmetric: bool = True
    contours: NDArray | None = None
    limits: tuple[float, float] | None = None


def draw(path: Path, sampler: Sampler, panels: Sequence[Panel], *, title: str, south: float = -90.0,
         dpi: int = 150) -> None:
    """Draw maps below each other. Not collective: for rank 0.

    Args:
        path: the PNG file.
        sampler: that made the maps.
        panels: the maps.
        title: of the picture.
        south: southern edge in degrees.
        dpi: resolution.
    """
    share = (90.0 - south) / 180.0
    figure = new_figure(8.2, (3.6 * share + 0.55) * len(panels) + 0.4)
    figure.set_layout_engine("constrained")
    longitude, latitude = np.degrees(sampler.longitude), np.degrees(sampler.latitude)
    for axes, panel in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        seen = panel.values[latitude >= south]
        low, high = panel.limits or (float(seen.min()), float(seen.max()))
        if panel.symmetric:
            high = max(abs(low), abs(high))
            low = -high
        if not high > low:
            low, high = low - 0.5, high + 0.5
        axes.imshow(panel.values, extent=(-180, 180, -90, 90), cmap=panel.colours, vmin=low, vmax=high,
                    interpolation="bilinear", aspect="equal")
        if panel.contours is not None:
            axes.contour(longitude, latitude, panel.contours, levels=12, colors="black", linewidths=0.5, alpha=0.6)
        axes.set_ylim(south, 90)
        axes.set_xticks(range(-180, 181, 60), [f"{abs(x)}°{'W' if x < 0 else 'E' if x > 0 else ''}"
                                               for x in range(-180, 181, 60)])
        ticks = [y for y in (-90, -60, -30, 0, 30, 60, 90) if y >= south]
        axes.set_yticks(ticks, [f"{abs(y)}°{'S' if y < 0 else 'N' if y > 0 else ''}" for y in ticks])
        axes.tick_params(labelsize=8)
        axes.set_title(panel.caption, fontsize=10, color=GREY)
        colour_bar(figure, axes, panel.colours, (low, high), panel.label, location="right", shrink=0.9, pad=0.02,
                   aspect=24)
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=dpi)


def check_animation(kind: str) -> None:
    """Raise unless this machine can make such an animation.

    Raises:
        InvalidInput: a program or package is missing.
    """
    if kind == "none":
        return
    if not available():
        raise InvalidInput("-animation", kind, "none where matplotlib is missing", "pip install matplotlib.")
    if kind == "mp4" and ffmpeg() is None:
        raise InvalidInput("-animation", kind, "none | gif where the program ffmpeg is missing",
                           "pip install imageio-ffmpeg brings it.")


def ffmpeg() -> str | None:
    """Return the path of the program ffmpeg, the system's or the one in the package imageio-ffmpeg; None without."""
    found = shutil.which("ffmpeg")
    if found is None:
        try:
            import imageio_ffmpeg

            found = str(imageio_ffmpeg.get_ffmpeg_exe())
        except (ImportError, RuntimeError):  # the package is not there, or has no binary for this machine
            return None
    return found


def animate(path: Path, frames: Sequence[Path]) -> None:
    """Make a GIF, or an MP4 with the program ffmpeg, of PNG pictures of one size. Not collective: for rank 0."""
    from PIL import Image

    pictures: list[Any] = []
    for frame in frames:
        with Image.open(frame) as picture:
            pictures.append(picture.convert("RGB"))
    if path.suffix == ".gif":
        # One palette for all, or colours would flicker.
        palette = pictures[len(pictures) // 2].quantize(128)
        reduced = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
        reduced[0].save(path, save_all=True, append_images=reduced[1:], duration=1000 // FRAMES_PER_SECOND, loop=0)
        return
    width, height = (size - size % 2 for size in pictures[0].size)  # as the codec wants it
    program = subprocess.Popen(
        [ffmpeg() or "ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s",
         f"{width}x{height}", "-r", str(FRAMES_PER_SECOND), "-i", "-", "-pix_fmt", "yuv420p", str(path)],
        stdin=subprocess.PIPE)
    assert program.stdin is not None
    for picture in pictures:
        program.stdin.write(picture.crop((0, 0, width, height)).tobytes())
    program.stdin.close()
    if program.wait() != 0:
        raise InvalidInput("-animation", "mp4", "gif where ffmpeg fails")
