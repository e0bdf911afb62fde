"""A small z-buffer renderer: shaded pictures of coloured triangles without any graphics library.

matplotlib sorts triangles by their mean depth, which tears thin fins apart; the usual 3-D libraries want OpenGL from
the system, which a fresh machine or a cluster node does not have. Some thousand triangles need neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.fem.surface import Surface

OVERSAMPLING = 2
"""Pixels are made this many times finer in both directions and then averaged."""

AMBIENT, DIFFUSE = 0.7, 0.3
LINE_DARKNESS = 0.55
CREASE_COSINE = 0.9
"""Neighbouring pixels whose normals differ by more than the angle of this cosine are parted by a line."""


@dataclass(frozen=True)
class View:
    """Where the eye is: far away (parallel projection), with z up.

    Args:
        azimuth: degrees from the x axis, counted as longitude.
        elevation: degrees above the horizon.
    """

    azimuth: float = -60.0
    elevation: float = 30.0

    def axes(self) -> tuple[NDArray, NDArray, NDArray]:
        """Return the unit vectors to the right, up and towards the eye."""
        azimuth, elevation = np.radians([self.azimuth, self.elevation])
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        eye = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        return right, np.cross(eye, right), eye


def render(surface: Surface, colours: Any, limits: tuple[float, float], view: View, *, width: int = 700,
           smooth: bool = False, lines: bool = True) -> NDArray:
    """Return a picture (height, width, 4) of the surface, RGBA from 0 to 1, cropped to it.

    Args:
        surface: the triangles.
        colours: a matplotlib colour map.
        limits: the values at its ends.
        view: where the eye is.
        width: of the picture in pixels.
        smooth: shade as if the surface were part of a sphere around the origin.
        lines: draw creases and silhouettes.
    """
    right, up, eye = view.axes()
    across, high, depth = (surface.corners @ axis for axis in (right, up, -eye))
    fine = width * OVERSAMPLING
    margin = 2 * OVERSAMPLING
    scale = (fine - 2 * margin) / max(np.ptp(across), 1e-300)
    x = (across - across.min()) * scale + margin
    y = (high.max() - high) * scale + margin
    shape = (-(-int(np.ceil(y.max() + margin)) // OVERSAMPLING) * OVERSAMPLING, fine)
    owner, deep = np.full(shape, -1), np.full(shape, np.inf)
    _paint(x, y, depth, owner, deep)
    seen = owner >= 0
    triangle = owner[seen]
    rows, columns = np.nonzero(seen)
    weights = _barycentric(x[triangle], y[triangle], columns + 0.5, rows + 0.5)
    values = np.einsum("pc,pc->p", weights, surface.values[triangle])
    span = limits[1] - limits[0]
    picture = np.zeros((*shape, 4), dtype=np.float32)
    picture[seen] = colours(np.clip((values - limits[0]) / (span if span > 0 else 1.0), 0, 1))
    normals = np.zeros((*shape, 3), dtype=np.float32)
    if smooth:
        inside = np.einsum("pc,pcd->pd", weights, surface.corners[triangle])
        normals[seen] = inside / np.maximum(np.linalg.norm(inside, axis=1), 1e-300)[:, None]
    else:
        normals[seen] = _normals(surface.corners, eye)[triangle]
    light = right * -0.35 + up * 0.55 + eye * 0.75
    light /= np.linalg.norm(light)
    shade = AMBIENT + DIFFUSE * np.clip(normals[seen] @ light, 0, 1)
    picture[seen, :3] *= shade[:, None]
    if lines:
        picture[..., :3] *= 1 - LINE_DARKNESS * _edges(seen, normals, deep, np.ptp(depth))[..., None]
    return _shrink(picture)


@compiled
def _paint(x: NDArray, y: NDArray, depth: NDArray, owner: NDArray, nearest: NDArray) -> None:
    """Put every triangle into the pixels where it is nearest.

    Args:
        x, y, depth: of the corners (count, 3), in pixels; the smaller the depth, the nearer.
        owner: number of the nearest triangle (height, width), -1 at first; changed in place.
        nearest: its depth, infinite at first; changed in place.
    """
    for t in range(x.shape[0]):
        x10, x20, y10, y20 = x[t, 1] - x[t, 0], x[t, 2] - x[t, 0], y[t, 1] - y[t, 0], y[t, 2] - y[t, 0]
        area = x10 * y20 - x20 * y10
        if abs(area) < 1e-12:  # seen edge on
            continue
        first_row, last_row = max(int(min(y[t])), 0), min(int(max(y[t])) + 1, owner.shape[0])
        first_column, last_column = max(int(min(x[t])), 0), min(int(max(x[t])) + 1, owner.shape[1])
        for row in range(first_row, last_row):
            for column in range(first_column, last_column):
                dx, dy = column + 0.5 - x[t, 0], row + 0.5 - y[t, 0]
                second, third = (dx * y20 - x20 * dy) / area, (x10 * dy - dx * y10) / area
                # A hair beyond the edge, so that no pixel falls between two triangles.
                if second < -1e-6 or third < -1e-6 or second + third > 1 + 1e-6:
                    continue
                deep = depth[t, 0] + second * (depth[t, 1] - depth[t, 0]) + third * (depth[t, 2] - depth[t, 0])
                if deep < nearest[row, column]:
                    nearest[row, column] = deep
                    owner[row, column] = t


def _barycentric(x: NDArray, y: NDArray, column: NDArray, row: NDArray) -> NDArray:
    """Return the barycentric coordinates (count, 3) of points in triangles with corners x, y (count, 3)."""
    x10, x20, y10, y20 = x[:, 1] - x[:, 0], x[:, 2] - x[:, 0], y[:, 1] - y[:, 0], y[:, 2] - y[:, 0]
    area = x10 * y20 - x20 * y10
    dx, dy = column - x[:, 0], row - y[:, 0]
    second, third = (dx * y20 - x20 * dy) / area, (x10 * dy - dx * y10) / area
    return np.stack([1 - second - third, second, third], axis=1)


def _normals(corners: NDArray, eye: NDArray) -> NDArray:
    """Return unit normals (count, 3), turned towards the eye."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1), 1e-300)[:, None]
    return normals * np.where(normals @ eye < 0, -1.0, 1.0)[:, None]


def _edges(seen: NDArray, normals: NDArray, deep: NDArray, extent: float) -> NDArray:
    """Return how much line (0 to 1) is in every pixel: creases, steps in depth, silhouettes."""
    line = np.zeros(seen.shape, dtype=bool)
    for axis in (0, 1):
        here = tuple(slice(None, -1) if i == axis else slice(None) for i in (0, 1))
        there = tuple(slice(1, None) if i == axis else slice(None) for i in (0, 1))
        both = seen[here] & seen[there]
        with np.errstate(invalid="ignore"):
            step = np.abs(deep[here] - deep[there]) > 0.02 * extent
        crease = np.einsum("...d,...d->...", normals[here], normals[there]) < CREASE_COSINE
        found = (both & (step | crease)) | (seen[here] != seen[there])
        line[here] |= found
        line[there] |= found
    return line.astype(float)


def _shrink(picture: NDArray) -> NDArray:
    """Return the picture at its final size, edges smoothed."""
    height, width = picture.shape[0] // OVERSAMPLING, picture.shape[1] // OVERSAMPLING
    blocks = picture.reshape(height, OVERSAMPLING, width, OVERSAMPLING, 4)
    alpha = blocks[..., 3].mean(axis=(1, 3))
    # Weighted by opacity: the background must not darken the rim.
    colour = (blocks[..., :3] * blocks[..., 3:]).sum(axis=(1, 3)) / np.maximum(blocks[..., 3:].sum(axis=(1, 3)), 1e-12)
    return np.clip(np.dstack([colour, alpha]), 0, 1)
