"""Potentials of the Schrödinger equation with exact levels and wave functions, in atomic units (hartree, bohr)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import ufl
from numpy.typing import NDArray

from analogpde.errors import InvalidInput

if TYPE_CHECKING:
    from analogpde.fem.run import Run

TRUNCATION = 1e-9
"""The box ends where exp(−2∫√(2(V − E)) dx) of the highest state, from its turning point on, falls to this: the WKB
estimate of what walls do to its level (within a factor of a few, which is far below 1e-6)."""

STATES = {("harmonic", 2): (6, 3), ("harmonic", 3): (4, 4), ("double_well", 2): (4, 2), ("double_well", 3): (4, 2),
          ("hydrogen", 2): (4, 2), ("hydrogen", 3): (1, 1)}
"""Default number of states: of the box, of the quadrant."""

WELLS = 3
"""Razavy's M: so many levels of the double well are known in closed form."""


@dataclass(frozen=True)
class Case:
    """A potential.

    Args:
        title: for people.
        levels: exact energies in ascending order, as many as wanted, in hartree.
        half_lengths: of the box, in bohr.
        bound: a lower bound of all levels.
        potential: V of the position (UFL), without a Coulomb part.
        charge: Z of the Coulomb part −Z/r, 0 if there is none.
        quadrature: degree of the quadrature of V u v beyond that of u v.
        source: of the levels.
        parameters: for the report.
        seen: half sides of what a picture shows, in bohr.
        wave: the packet: maps points (3, count) and a time to complex values (count,).
        reference: energy whose phase is taken out in time, in hartree.
        time: of a revival or of tunnelling from side to side, in ħ/hartree.
    """

    title: str
    levels: Sequence[float]
    half_lengths: tuple[float, ...]
    bound: float
    potential: Callable[[Any], Any] | None
    charge: float = 0.0
    quadrature: int = 2
    source: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    seen: tuple[float, ...] = ()
    wave: Callable[[NDArray, float], NDArray] = lambda points, time: np.zeros(points.shape[1])
    reference: float = 0.0
    time: float = 0.0

    def energy(self, u: Any, v: Any, degree: int) -> ufl.Form:
        """Return the form ½∇u·∇v + V u v, integrated over the box; u v is zero on its walls.

        The Coulomb part has a bounded integrand: 1/r = ∇·(x/r)/(d − 1), by parts. (On planes of symmetry x/r has no
        normal component.) A quadrature that knows nothing of the singularity then errs by the volume of the cells at
        the nucleus.
        """
        x = ufl.SpatialCoordinate(ufl.domain.extract_unique_domain(v))
        form = 0.5 * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx
        if self.potential is not None:
            form += self.potential(x) * u * v * ufl.dx(metadata={"quadrature_degree": 2 * degree + self.quadrature})
        if self.charge:
            direction = x / ufl.sqrt(ufl.inner(x, x))
            form += self.charge / (len(self.half_lengths) - 1) * ufl.inner(direction, ufl.grad(u * v)) * ufl.dx(
                metadata={"quadrature_degree": 2 * degree + 4})
        return form


def half_length(potential: Callable[[NDArray], NDArray], energy: float, truncation: float = TRUNCATION) -> float:
    """Return where a state of `energy` in a potential of one coordinate has decayed enough: see TRUNCATION."""
    reach = 1.0
    while True:
        x = np.linspace(reach / 4000, reach, 4000)
        rate = np.sqrt(2 * np.maximum(potential(x) - energy, 0.0))
        allowed = np.flatnonzero(rate == 0)
        if allowed.size:
            rate[: allowed[-1]] = 0.0  # a barrier inside is no wall
        decay = 2 * np.cumsum(rate) * (x[1] - x[0])
        if decay[-1] >= -math.log(truncation) and rate[-1] > 0:
            return float(x[np.searchsorted(decay, -math.log(truncation))])
        reach *= 1.5


def _oscillator(omega: float) -> Callable[[NDArray], NDArray]:
    return lambda x: 0.5 * omega**2 * x**2


def razavy(zeta: float) -> tuple[list[float], Callable[[NDArray], NDArray], Callable[[NDArray], NDArray]]:
    """Return the three levels (hartree) and the lowest two wave functions, normalised, of V = ½(ζ cosh 2x − 3)².

    exp(−½ζ cosh 2x) times 1 and cosh 2x mixed, or sinh 2x. Source: Razavy, American Journal of Physics 48 (1980) 285.
    """
    values, mixing = np.linalg.eigh([[zeta**2 + 9, -4 * zeta], [-4 * zeta, zeta**2 + 5]])
    levels = sorted([values[0] / 2, (zeta**2 + 5) / 2, values[1] / 2])

    def even(x: NDArray) -> NDArray:
        return np.exp(-zeta / 2 * np.cosh(2 * x)) * (mixing[0, 0] + mixing[1, 0] * np.cosh(2 * x))

    def odd(x: NDArray) -> NDArray:
        return np.exp(-zeta / 2 * np.cosh(2 * x)) * np.sinh(2 * x)

    end = half_length(lambda x: 0.5 * (zeta * np.cosh(2 * x) - WELLS) ** 2, levels[1], 1e-16)
    x = np.linspace(-end, end, 4001)  # the trapezoidal rule is spectrally accurate for what ends flat
    step = x[1] - x[0]
    scales = [1 / math.sqrt(float((f(x) ** 2).sum()) * step) for f in (even, odd)]
    sign = np.sign(even(np.array([0.0]))[0])
    return [float(level) for level in levels], lambda x: sign * scales[0] * even(x), lambda x: scales[1] * odd(x)


def _lowest(along: Sequence[Sequence[float]], count: int) -> list[float]:
    """Return the lowest sums of one level of each direction."""
    return sorted(sum(parts) for parts in itertools.product(*along))[:count]


def _count(run: Run, states: int | None) -> int:
    return int(states or STATES[run["case"], run["dim"]][bool(run["quadrant"])])


def _box(run: Run, sides: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(run["box"] or side) for side in sides)


def harmonic(run: Run, states: int | None) -> Case:
    """The oscillator: E = ω Σ (nᵢ + ½)."""
    omega, dim, count = run["omega"], run["dim"], _count(run, states)
    quanta = range(0, 2 * count, 2 if run["quadrant"] else 1)
    levels = _lowest([[omega * (k + 0.5) for k in quanta]] * dim, count)
    side = half_length(_oscillator(omega), levels[-1] - (dim - 1) * omega / 2)
    sides = _box(run, [side] * dim)
    return Case(f"harmonic oscillator in {dim}-D", levels, sides, 0.0, lambda x: 0.5 * omega**2 * ufl.inner(x, x),
                source="E = ω Σ (n + 1/2)", parameters={"omega": omega}, seen=sides)


def double_well(run: Run, states: int | None) -> Case:
    """Razavy's double well along x, oscillators across."""
    omega, zeta, dim, count = run["omega"], run["zeta"], run["dim"], _count(run, states)
    known, _, _ = razavy(zeta)
    quanta = range(0, 2 * count, 2 if run["quadrant"] else 1)
    across = [[omega * (k + 0.5) for k in quanta]] * (dim - 1)
    zero_point = (dim - 1) * omega / 2
    levels = _lowest([known[::2] if run["quadrant"] else known, *across], count + 1)
    # The fourth level along x is not known; below the third all sums are.
    certain = [level for level in levels if level <= known[-1] + zero_point * (1 + 1e-12)]
    if len(certain) < count:
        raise InvalidInput("-states", count, f"at most {len(certain)} with -zeta {zeta:g} and -omega {omega:g}",
                           "Only three levels along x are known in closed form.")
    levels = certain[:count]

    def well(x: NDArray) -> NDArray:
        return np.asarray(0.5 * (zeta * np.cosh(2 * x) - WELLS) ** 2)

    sides = _box(run, [half_length(well, levels[-1] - zero_point),
                       *[half_length(_oscillator(omega), levels[-1] - known[0] - zero_point + omega / 2)] * (dim - 1)])

    def potential(x: Any) -> Any:
        rest = sum(x[i] ** 2 for i in range(1, dim))
        return 0.5 * (zeta * ufl.cosh(2 * x[0]) - WELLS) ** 2 + 0.5 * omega**2 * rest

    return Case(f"double well in {dim}-D", levels, sides, 0.0, potential, quadrature=6,
                source="Razavy, Am. J. Phys. 48 (1980) 285", parameters={"omega": omega, "zeta": zeta}, seen=sides)


def hydrogen(run: Run, states: int | None) -> Case:
    """−Z/r: E = −Z²/2n² in space, −Z²/2(n − ½)² in the plane."""
    charge, dim, count = run["charge"], run["dim"], _count(run, states)
    levels: list[float] = []
    shell = 0
    while len(levels) < count:
        shell += 1
        if run["quadrant"]:  # harmonics even in every coordinate: one of each even order; l/2 + 1 of each even l
            number = (shell + 1) // 2 if dim == 2 else sum(half + 1 for half in range((shell + 1) // 2))
        else:
            number = 2 * shell - 1 if dim == 2 else shell**2
        levels += [-(charge**2) / (2 * (shell - 0.5 * (dim == 2)) ** 2)] * number
    levels = levels[:count]
    side = half_length(lambda r: -charge / r, levels[-1])
    sides = _box(run, [side] * dim)
    radius = 2.5 * shell**2 / charge  # some orbits wide
    return Case(f"hydrogen-like atom in {dim}-D", levels, sides, 1.25 * levels[0], None, charge,
                source="Bohr" if dim == 3 else "Yang et al., Phys. Rev. A 43 (1991) 1186",
                parameters={"charge": charge}, seen=tuple(min(radius, side) for side in sides))


CASES = {"harmonic": harmonic, "double_well": double_well, "hydrogen": hydrogen}


def create(run: Run, states: int | None) -> Case:
    """Return the potential of the command line, with the lowest `states` levels (None: the default number).

    Raises:
        InvalidInput: so many levels are not known.
    """
    return CASES[run["case"]](run, states)


def packet(run: Run) -> Case:
    """Return the potential with a packet that moves in it, for -mode time.

    Raises:
        InvalidInput: the case has none.
    """
    if run["case"] == "hydrogen":
        raise InvalidInput("-case", "hydrogen", "harmonic | double_well with -mode time",
                           "They have exact moving solutions.")
    if run["quadrant"]:
        raise InvalidInput("-quadrant", True, "false with -mode time", "The packets are not even.")
    case = CASES[run["case"]](run, 1 if run["case"] == "harmonic" else 2)
    omega, dim = run["omega"], run["dim"]

    def ground(y: NDArray) -> NDArray:
        return np.asarray((omega / math.pi) ** (0.25 * (dim - 1)) * np.exp(-0.5 * omega * (y**2).sum(axis=0)))

    fixed = {name: getattr(case, name) for name in ("title", "bound", "potential", "quadrature", "levels")}
    if run["case"] == "harmonic":
        far = run["displacement"]
        sides = _box(run, [case.half_lengths[0] + far, *case.half_lengths[1:]])

        def coherent(points: NDArray, time: float) -> NDArray:
            # Schrödinger 1926: centre and momentum move as those of the classical particle.
            centre, momentum = far * math.cos(omega * time), -omega * far * math.sin(omega * time)
            x = points[0]
            phase = momentum * x - momentum * centre / 2 - dim * omega * time / 2
            along = (omega / math.pi) ** 0.25 * np.exp(-0.5 * omega * (x - centre) ** 2 + 1j * phase)
            return np.asarray(along * ground(points[1:dim]))

        return Case(**fixed, half_lengths=sides, seen=sides, source="a coherent state comes back after a period",
                    parameters=case.parameters | {"displacement": far}, wave=coherent,
                    reference=dim * omega / 2 + 0.5 * (omega * far) ** 2, time=2 * math.pi / omega)
    known, even, odd = razavy(run["zeta"])

    def tunnelling(points: NDArray, time: float) -> NDArray:
        x = points[0]
        zero_point = (dim - 1) * omega / 2
        mixture = even(x) * np.exp(-1j * (known[0] + zero_point) * time) + odd(x) * np.exp(
            -1j * (known[1] + zero_point) * time)
        return np.asarray(mixture / math.sqrt(2) * ground(points[1:dim]))

    return Case(**fixed, half_lengths=case.half_lengths, seen=case.half_lengths, source=case.source,
                parameters=case.parameters, wave=tunnelling,
                reference=(known[0] + known[1]) / 2 + (dim - 1) * omega / 2, time=math.pi / (known[1] - known[0]))
