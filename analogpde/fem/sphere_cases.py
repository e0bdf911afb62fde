"""Initial states of the shallow-water equations on the sphere: published test cases, or a file of the user's.

Williamson, Drake, Hack, Jakob and Swarztrauber, *A standard test set for numerical approximations to the shallow water
equations in spherical geometry*, Journal of Computational Physics 102 (1992) 211–224; Galewsky, Scott and Polvani, *An
initial-value problem for testing numerical models of the global shallow-water equations*, Tellus 56A (2004) 429–440.
"""

from __future__ import annotations

import ast
import math
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde.errors import InvalidInput, did_you_mean

RADIUS = 6.37122e6  # m
OMEGA = 7.292e-5  # 1/s, rotation of the Earth
GRAVITY = 9.80616  # m/s²
DAY = 86400.0  # s

NAMES = ("tc2", "tc5", "tc6", "galewsky", "galewsky_balanced")

Field = Callable[[NDArray, NDArray], NDArray]
"""A function of longitude (−π to π) and latitude in radians, arrays of one shape."""

FIELDS = ("vorticity", "depth", "divergence", "mountain", "planetary")
SETTINGS = ("days", "speed", "title")
"""What a file of the user's may define: functions, the first two needed, and numbers or text."""

WAVE_NUMBER = 4
WAVE = 7.848e-6  # 1/s, ω and K of test case 6


def _zero(longitude: NDArray, latitude: NDArray) -> NDArray:
    return np.zeros_like(longitude)


def _planetary(longitude: NDArray, latitude: NDArray) -> NDArray:
    return 2 * OMEGA * np.sin(latitude)


@dataclass(frozen=True)
class Case:
    """An initial state.

    Args:
        title: what it is.
        vorticity: relative, 1/s.
        depth: of the water, m.
        days: simulated time of the published results.
        speed: largest wind to expect in the run, m/s; the default time step follows from it.
        divergence: 1/s.
        mountain: height of the ground, m.
        planetary: Coriolis parameter, 1/s.
        steady: the initial state is an exact solution for all times.
        source: where it comes from.
        wave_number: of the wave around the Earth whose rotation is measured; 0: none.
        south: southern edge of the maps, degrees.
    """

    title: str
    vorticity: Field
    depth: Field
    days: float
    speed: float
    divergence: Field = _zero
    mountain: Field = _zero
    planetary: Field = _planetary
    steady: bool = False
    source: str = ""
    wave_number: int = 0
    south: float = -90.0

    def inertial_frequency(self) -> float:
        """Return the largest Coriolis parameter of a grid of 5 degrees, 1/s."""
        longitude, latitude = np.meshgrid(np.linspace(-np.pi, np.pi, 73), np.linspace(-np.pi / 2, np.pi / 2, 37))
        return float(np.abs(self.planetary(longitude, latitude)).max())


def case(name: str, rotation: float = 0.0) -> Case:
    """Return a published test case.

    Args:
        name: one of NAMES.
        rotation: angle in degrees between the axes of the Earth and of the flow of test case 2.
    """
    if name == "tc2":
        return _steady_flow(math.radians(rotation))
    if name == "tc5":
        return _mountain()
    if name == "tc6":
        return _rossby_haurwitz()
    return _jet(perturbed=name == "galewsky")


def _zonal_depth(mean: float, u0: float, sine: NDArray) -> NDArray:
    return mean - (RADIUS * OMEGA * u0 + u0**2 / 2) * sine**2 / GRAVITY


def _steady_flow(alpha: float) -> Case:
    """Test case 2: a solid rotation in balance, the Earth's axis tilted with it (equations 90 to 96)."""
    u0 = 2 * math.pi * RADIUS / (12 * DAY)

    def sine(longitude: NDArray, latitude: NDArray) -> NDArray:
        return -np.cos(longitude) * np.cos(latitude) * math.sin(alpha) + np.sin(latitude) * math.cos(alpha)

    return Case(
        "Williamson test case 2: steady zonal flow" + (f", axis at {math.degrees(alpha):g} degrees" if alpha else ""),
        lambda lon, lat: 2 * u0 / RADIUS * sine(lon, lat),
        lambda lon, lat: _zonal_depth(2.94e4 / GRAVITY, u0, sine(lon, lat)),
        days=5.0, speed=u0, planetary=lambda lon, lat: 2 * OMEGA * sine(lon, lat), steady=True,
        source="Williamson et al. 1992")


def _mountain() -> Case:
    """Test case 5: zonal flow over an isolated mountain."""
    u0, height, radius, centre = 20.0, 2000.0, math.pi / 9, (-math.pi / 2, math.pi / 6)

    def mountain(longitude: NDArray, latitude: NDArray) -> NDArray:
        across = np.abs(longitude - centre[0])
        across = np.minimum(across, 2 * math.pi - across)
        distance = np.sqrt(across**2 + (latitude - centre[1]) ** 2)
        return height * (1 - np.minimum(radius, distance) / radius)

    return Case(
        "Williamson test case 5: flow over a mountain",
        lambda lon, lat: 2 * u0 / RADIUS * np.sin(lat),
        lambda lon, lat: _zonal_depth(5960.0, u0, np.sin(lat)) - mountain(lon, lat),
        days=15.0, speed=50.0, mountain=mountain, source="Williamson et al. 1992")


def _rossby_haurwitz() -> Case:
    """Test case 6: the Rossby–Haurwitz wave of wave number 4 (equations 137 to 149)."""
    r, omega, k = WAVE_NUMBER, WAVE, WAVE

    def vorticity(longitude: NDArray, latitude: NDArray) -> NDArray:
        sine, cosine = np.sin(latitude), np.cos(latitude)
        return 2 * omega * sine - k * sine * cosine**r * (r**2 + 3 * r + 2) * np.cos(r * longitude)

    def depth(longitude: NDArray, latitude: NDArray) -> NDArray:
        c = np.cos(latitude)
        mean = (omega / 2 * (2 * OMEGA + omega) * c**2 + k**2 / 4 * c ** (2 * r) * ((r + 1) * c**2 + 2 * r**2 - r - 2)
                - k**2 / 2 * r**2 * c ** (2 * r - 2))
        once = (2 * (OMEGA + omega) * k / ((r + 1) * (r + 2)) * c**r * (r**2 + 2 * r + 2 - (r + 1) ** 2 * c**2))
        twice = k**2 / 4 * c ** (2 * r) * ((r + 1) * c**2 - (r + 2))
        return 8000.0 + RADIUS**2 / GRAVITY * (mean + once * np.cos(r * longitude) + twice * np.cos(2 * r * longitude))

    return Case("Williamson test case 6: Rossby-Haurwitz wave 4", vorticity, depth, days=7.0, speed=110.0,
                source="Williamson et al. 1992", wave_number=r)


def _jet(*, perturbed: bool) -> Case:
    """Galewsky's mid-latitude jet, which the perturbation makes roll up (equations 2 to 4)."""
    fastest, south, north = 80.0, math.pi / 7, math.pi / 2 - math.pi / 7
    scale = fastest / math.exp(-4 / (north - south) ** 2)

    def wind(latitude: NDArray) -> NDArray:
        inside = (latitude - south) * (latitude - north)
        return np.where(inside < 0, scale * np.exp(1 / np.where(inside < 0, inside, -1.0)), 0.0)

    def vorticity(longitude: NDArray, latitude: NDArray) -> NDArray:
        u, inside = wind(latitude), (latitude - south) * (latitude - north)
        shear = -u * (2 * latitude - south - north) / np.where(inside < 0, inside, -1.0) ** 2
        return (u * np.tan(np.where(inside < 0, latitude, 0.0)) - shear) / RADIUS

    # dh/dθ = −a u (f + u tan θ/a)/g; the trapezoidal rule is exact to rounding where all derivatives end at zero.
    grid = np.linspace(south, north, 20001)
    u = wind(grid)
    slope = -RADIUS * u * (2 * OMEGA * np.sin(grid) + np.tan(grid) * u / RADIUS) / GRAVITY
    balance = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2) * (grid[1] - grid[0])])
    # Mean of the depth over the sphere: ½ ∫ h cos θ dθ, constant outside the jet.
    inner = np.sum((balance[1:] * np.cos(grid[1:]) + balance[:-1] * np.cos(grid[:-1])) / 2) * (grid[1] - grid[0])
    offset = 10000.0 - (inner + balance[-1] * (1 - math.sin(north))) / 2

    def depth(longitude: NDArray, latitude: NDArray) -> NDArray:
        h = offset + np.interp(latitude, grid, balance)
        if perturbed:
            h = h + (120.0 * np.cos(latitude) * np.exp(-((3 * longitude) ** 2))
                     * np.exp(-((15 * (math.pi / 4 - latitude)) ** 2)))
        return h

    return Case("Galewsky jet" if perturbed else "Galewsky jet, unperturbed", vorticity, depth, days=6.0, speed=90.0,
                steady=not perturbed, source="Galewsky et al. 2004", south=0.0)


def from_file(path: Path) -> Case:
    """Return the state that a Python file of the user's describes.

    It defines `vorticity(longitude, latitude)` in 1/s and `depth(longitude, latitude)` in m as functions of NumPy
    arrays in radians, and if it likes `divergence`, `mountain`, `planetary` (the Coriolis parameter), and the numbers
    `days` and `speed` (largest wind in m/s).

    Raises:
        InvalidInput: the file cannot be read or run, lacks one of the two, or its numbers are none. What its functions
            return is checked when they are called.
    """
    try:
        names = runpy.run_path(str(path))
        used = {node.id for node in ast.walk(ast.parse(path.read_bytes()))
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    except (Exception, SystemExit) as problem:
        raise InvalidInput("-initial", str(path), "a Python file that runs",
                           f"{type(problem).__name__}: {problem}") from None
    _refuse_misspelt(path, names, used)
    for name in FIELDS[:2]:
        if not callable(names.get(name)):
            raise InvalidInput("-initial", str(path), f"a Python file that defines {name}(longitude, latitude)")
    fields: dict[str, Any] = {name: _checked(path, name, names[name]) for name in FIELDS if callable(names.get(name))}
    numbers: dict[str, Any] = {}
    for name, default in (("days", 5.0), ("speed", 100.0)):
        value = names.get(name, default)
        if not isinstance(value, int | float) or not 0.0 < value < np.inf:
            raise InvalidInput(f"-initial {path}, {name}", value, "a number above 0")
        numbers[name] = float(value)
    return Case(str(names.get("title", path.stem)), **fields, **numbers)


def _refuse_misspelt(path: Path, names: dict[str, Any], used: set[str]) -> None:
    """Raise if a name of a user's file is nearly one that is understood and missing; helpers begin with an underscore.

    Numbers and text that the file uses itself, such as `day = 86400`, are no mistakes; functions may be.
    """
    for name, value in names.items():
        own = getattr(value, "__module__", None) == names["__name__"] if callable(value) else (
            isinstance(value, int | float | str) and name not in used)
        missing = [other for other in (FIELDS if callable(value) else SETTINGS) if other not in names]
        if own and not name.startswith("_") and (near := did_you_mean(name.lower(), missing, likeness=0.75)):
            raise InvalidInput(f"-initial {path}", name, f"{', '.join((*FIELDS, *SETTINGS))}; names of helpers begin "
                               "with _", near)


def _checked(path: Path, name: str, function: Field) -> Field:
    """Return a user's function with its values looked at: real, finite, one for each place; depths above zero."""
    what = f"-initial {path}, {name}(longitude, latitude)"

    def field(longitude: NDArray[np.float64], latitude: NDArray[np.float64]) -> NDArray[np.float64]:
        try:
            found = np.asarray(function(longitude, latitude))
        except (Exception, SystemExit) as problem:
            raise InvalidInput(what, f"{type(problem).__name__}: {problem}", "a function that runs") from None
        if found.dtype.kind not in "fiu":
            raise InvalidInput(what, f"values of type {found.dtype}", "real numbers")
        try:
            values = np.broadcast_to(found, longitude.shape).astype(np.float64)
        except ValueError:
            raise InvalidInput(what, f"an array of shape {found.shape}",
                               f"shape {longitude.shape}, as its arguments have, or one number") from None
        if not np.isfinite(values).all():
            raise InvalidInput(what, "NaN or infinity", "finite numbers")
        if name == "depth" and not values.min(initial=np.inf) > 0.0:
            raise InvalidInput(what, f"{values.min():g} m", "depths above 0 m", "Water must cover the sphere.")
        return values

    return field
