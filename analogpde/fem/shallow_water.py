"""The rotating shallow-water equations on the sphere, discretised: vorticity and divergence in finite elements.

    ∂ζ/∂t + ∇·(η u) = 0,   ∂δ/∂t = n·∇×(η u) − ∇²(½|u|² + g(h + b)),   ∂h/∂t + ∇·(h u) = 0,
    η = ζ + f,   u = n×∇ψ + ∇χ,   ∇²ψ = ζ,   ∇²χ = δ

All fields are continuous Lagrange functions at the same nodes (the unstaggered "Z grid" of Randall, Monthly Weather
Review 122, 1994). The state is (Z, D, Y) = (M ζ, M δ, M h): what is conserved is then a sum of unknowns whose
tendency is a sum of gradients of test functions, zero to rounding however well the systems are solved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ufl
from dolfinx import fem
from mpi4py import MPI
from numpy.typing import NDArray
from petsc4py import PETSc

from analogpde.errors import InvalidInput
from analogpde.fem import tangent
from analogpde.fem.arguments import on_all
from analogpde.fem.forms import matrix, zero_vector
from analogpde.fem.multistep import ADVECTION, DIFFUSION, EXPLICIT, IMPLICIT, VISCOUS
from analogpde.fem.run import Run
from analogpde.fem.sphere import create_sphere
from analogpde.fem.sphere_cases import GRAVITY, RADIUS, Case, Field
from analogpde.fem.unknown import Unknown

UPWIND = 0.25
"""Upwinding of the vorticity: η* = η − √τ (√τ u·∇η − q), τ = UPWIND · d/(2 p |u|), q the projection of √τ u·∇η on the
elements' space; d is the height of the cell and p the degree of the elements.

What a projection leaves is only what the mesh cannot show (orthogonal subscales: Codina, Computer Methods in Applied
Mechanics and Engineering 191, 2002; d/(2 p |u|) is his τ of pure advection). It is of second order in the size of the
cells where the field is smooth, always takes enstrophy out, as ‖√τ u·∇η − q‖², and, being in both equations, does no
work. With q = 0 it is the anticipated potential vorticity method of Sadourny and Basdevant (Journal of the Atmospheric
Sciences 42, 1985), which takes enstrophy out of all scales. Half of Codina's τ is the most that leaves the limit of the
time step as it is without (`multistep.STABLE`; scripts/scan_stability.py)."""

CLOSURES = ("bounded", "subscales", "anticipated")
"""Where q is 0: where η/h leaves the range of the initial state, nowhere, everywhere.

The exact flow carries η/h along and keeps it in that range. Where a state has left it, `bounded` also diffuses the
vorticity across the flow, by the flux −κ h ∂(η/h), κ being that of Codina's whole τ, d|u|/(2 p), or what the time step
can bear, if that is less: the streamlines of a vortex follow its vorticity, so that upwinding alone hardly acts on its
extreme. This flux does work, no other does. With σ = 1 in the range and 0 outside, q is the projection of σ√τ u·∇η, and
η* has σq: upwinding takes ‖√τ u·∇η‖² − ‖q‖² out, which is not negative."""

BEYOND = 1e-3
"""A cell has left the bounds in part where η/h at its worst node is further beyond them than this, of the distance
between the two, and wholly at twice that. Truncation errors of a steady, smooth flow reach a tenth of it: with a switch
at zero, diffusion at the poles would be the largest error of tc2."""

CONSTANT, NOTICED = 1e-12, 0.05
"""Of the largest initial vorticity: less variation than the one is rounding; a larger mean than the other, of which
nothing is left, is worth a line. The published cases stay below it, the meshes' errors on level 1 included."""

LOCAL = 1.5
"""Heights of the smallest cell over which the answer of the Helmholtz equation may decay for one level of tiles to do:
above, two levels take less time (level 4, chip rram128). Steps that advection allows stay below half of it."""


@dataclass(frozen=True)
class Diagnostics:
    """What a state is judged by.

    Args:
        mass: Σ Y = ∫ h, m³, conserved by construction.
        energy: ∫ ½h|u|² + ½gh² + ghb, m⁵/s².
        potential_enstrophy: ∫ ½η²/h, m/s².
        divergence_energy: ∫ |∇χ|², m⁴/s².
        speed: largest |u|, m/s.
        advective: largest frequency of advection times dt; see `multistep.STABLE`.
        gravity: of gravity waves at the reference depth.
    """

    mass: float
    energy: float
    potential_enstrophy: float
    divergence_energy: float
    speed: float
    advective: float
    gravity: float


class ShallowWater:
    """The semi-discrete equations and their time stepping by AM2*–AX2* (`multistep`). Collective.

    A step takes six solves with three constant matrices: S ψ = −Z, S χ = −D; the Helmholtz equation
    (M + (¾ dt)² g H S) h = …; M ζ = Z, M q = (√τ u·∇η, w) and M K = (½|u|², w).

    Args:
        run: the run.
        case: the initial state.
        level: of the icosphere.
        degree: of the Lagrange elements, 1 or 2.
        dt: time step in s.
        depth: reference depth H in m; None: the largest of the initial state.
        upwind: see UPWIND; 0 is no closure.
        closure: of CLOSURES.
        bounds: of η/h; None: those of the initial state.
        viscosity: ν in m²/s of ν ∇²ζ.

    Raises:
        InvalidInput: the viscosity, which is explicit, is too large for the time step.
    """

    def __init__(self, run: Run, case: Case, level: int, degree: int, dt: float, depth: float | None = None,
                 upwind: float = UPWIND, closure: str = CLOSURES[0], viscosity: float = 0.0,
                 bounds: Sequence[float] | None = None) -> None:
        self.comm, self.dt, self.degree, self._run = run.comm, dt, degree, run
        self.viscosity = viscosity
        self.upwind, self.projects = upwind / (2 * degree), upwind > 0 and closure != "anticipated"
        self.mesh = create_sphere(run.comm, level, RADIUS)
        self.space = space = fem.functionspace(self.mesh, ("Lagrange", degree))
        self.ground = self.interpolate(case.mountain, "mountain")
        self.planetary = self.interpolate(case.planetary, "planetary")
        with run.assembling():
            quadrature = 2 * degree + 2  # exact on flat cells for the triple products
            dx = ufl.dx(metadata={"quadrature_degree": quadrature})
            trial, test = ufl.TrialFunction(space), ufl.TestFunction(space)
            self.mass = matrix(trial * test * dx)
            self.stiffness = matrix(ufl.inner(ufl.grad(trial), ufl.grad(test)) * dx)
            constants = PETSc.NullSpace().create(constant=True, comm=run.comm)
            self.stiffness.setNullSpace(constants)
            self.stiffness.setNearNullSpace(constants)
            self.cells = tangent.tabulate(space, quadrature)
        self.smallest_height = run.comm.allreduce(float(self.cells.height.min(initial=np.inf)), MPI.MIN)
        fastest = VISCOUS / (DIFFUSION[degree] ** 2 * dt)  # diffusion, in units of heights², that is stable
        self._across = 1 / (2 * degree) if upwind > 0 else 0.0, fastest
        most = fastest * self.smallest_height**2
        if viscosity > most:
            raise InvalidInput("-viscosity", viscosity, f"at most {most:.3g} m²/s with -dt {dt:g}",
                               "It is explicit: take smaller steps.")
        start = self.interpolate(case.depth, "depth")
        self.reference = depth or float(start.x.petsc_vec.max()[1])
        self.implicit = IMPLICIT[0] * dt
        helmholtz = self.mass.copy()
        helmholtz.axpy(self.implicit**2 * GRAVITY * self.reference, self.stiffness,
                       structure=PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
        poisson = run.system(self.stiffness, space, "poisson_")
        mass = run.system(self.mass, space, "mass_", local=True)
        reach = self.implicit * np.sqrt(GRAVITY * self.reference)  # over which the answer to a point decays
        wave = run.system(helmholtz, space, "helmholtz_", local=bool(reach < LOCAL * self.smallest_height))
        self.systems = {"poisson_": poisson, "mass_": mass, "helmholtz_": wave}
        self.streamfunction = Unknown(space, "streamfunction", poisson)
        self.potential = Unknown(space, "potential", poisson)
        self.vorticity = Unknown(space, "vorticity", mass)
        self.kinetic = Unknown(space, "kinetic_energy", mass)
        self.depth = Unknown(space, "depth", self.systems["helmholtz_"])
        self.advection = Unknown(space, "vorticity_advection", mass)
        self.unknowns = (self.streamfunction, self.potential, self.vorticity, self.kinetic, self.advection, self.depth)
        self.absolute = fem.Function(space, name="absolute_vorticity")
        self._b, self._product = zero_vector(space), zero_vector(space)
        size = len(self._b.array)
        self.state = np.zeros((3, size))
        """Z, D and Y, owned entries."""
        self.past_tendencies: list[NDArray] = []
        """Explicit ones (3, owned) of the last steps, newest first, the present one not included."""
        self.past_waves: list[NDArray] = []
        """S h and D (2, owned) of the present and the last step, newest first."""
        self._sectoral: NDArray | None = None
        self._bounded = closure == "bounded"
        self.bounds: tuple[float, ...] = ()
        """Smallest and largest η/h of the initial state, 1/(m s)."""
        self._begin(case, start)
        self._bound(bounds)

    def interpolate(self, field: Field, name: str) -> fem.Function:
        """Return a function of longitude and latitude as a finite-element function. Collective.

        Raises:
            InvalidInput: a user's function fails, on any rank.
        """
        function = fem.Function(self.space, name=name)

        def values(x: NDArray) -> NDArray:
            longitude, sine = np.arctan2(x[1], x[0]), x[2] / np.linalg.norm(x, axis=0)
            latitude = np.arcsin(np.clip(sine, -1, 1))
            found = on_all(self.space.mesh.comm, lambda: np.asarray(field(longitude, latitude), float))
            return np.broadcast_to(found, sine.shape)

        function.interpolate(values)
        return function

    def _begin(self, case: Case, depth: fem.Function) -> None:
        """Set the initial state; the mean of vorticity and divergence is removed (Stokes, Gauss)."""
        fields = [self.interpolate(case.vorticity, "vorticity"), self.interpolate(case.divergence, "divergence"), depth]
        ones = zero_vector(self.space)
        ones.set(1.0)
        area = self.times(self.mass, ones.array)
        total = self._sum(area)
        self._area = area / total
        for row, field in enumerate(fields):
            self.state[row] = self.times(self.mass, field.x.petsc_vec.array)
        for name, field, values in zip(("vorticity", "divergence"), fields, self.state, strict=False):
            low, high = self.extremes(field)
            largest, mean = max(abs(low), abs(high)), self._sum(values) / total
            if abs(mean) > NOTICED * largest:
                self._run.say(f"The mean of the {name}, {mean:.3g} 1/s, is taken off: on a closed sphere it is zero.")
            if high - low <= CONSTANT * largest:
                values[:] = 0.0  # what rounding would leave is no right-hand side of a Poisson equation
        self._without_means(self.state)
        self.depth.values[:] = depth.x.petsc_vec.array
        self.depth.function.x.scatter_forward()
        self.depth.begin([self.depth.values.copy()])
        self.vorticity.values[:] = fields[0].x.petsc_vec.array  # a guess
        ones.destroy()

    def _bound(self, bounds: Sequence[float] | None = None) -> None:
        """Set the bounds of η/h, by default those of the state in vorticity and depth. Collective."""
        low, high = self.bounds = tuple(bounds) if bounds is not None else self._range()
        # and how far beyond them σ is still 1; where all is one value, rounding alone shall not matter
        ramp = max(BEYOND * (high - low), 1e-9 * max(abs(low), abs(high)))
        self._limits = np.array([low, high, ramp if ramp > 0 else 1.0] if self._bounded else [-np.inf, np.inf, 1.0])

    def _range(self) -> tuple[float, float]:
        """Return smallest and largest η/h of the nodes. Collective."""
        ratio = (self.vorticity.values + self.planetary.x.petsc_vec.array) / self.depth.values
        return (self.comm.allreduce(float(ratio.min(initial=np.inf)), MPI.MIN),
                self.comm.allreduce(float(ratio.max(initial=-np.inf)), MPI.MAX))

    def beyond(self) -> float:
        """Return how far η/h is out of the bounds that the exact flow keeps, of their distance."""
        (low, high), (least, most) = self.bounds, self._range()
        return max(low - least, most - high, 0.0) / (high - low) if high > low else 0.0

    def times(self, A: PETSc.Mat, values: NDArray) -> NDArray:
        """Return A times owned values."""
        self._b.array[:] = values
        A.mult(self._b, self._product)
        return self._product.array.copy()

    def _sum(self, values: NDArray) -> float:
        return float(self.comm.allreduce(float(values.sum()), MPI.SUM))

    def _without_means(self, state: NDArray) -> None:
        """Remove the means of vorticity and divergence, zero but for rounding, which would add up to mass."""
        for row in state[:2]:
            row -= self._area * self._sum(row)

    def _solve(self, unknown: Unknown, b: NDArray) -> None:
        self._b.array[:] = b
        unknown.solve(self._b)

    def diagnose(self) -> None:
        """Solve for streamfunction, potential and vorticity of the state."""
        self._solve(self.streamfunction, -self.state[0])
        self._solve(self.potential, -self.state[1])
        self._solve(self.vorticity, self.state[0])
        self.absolute.x.array[:] = self.vorticity.function.x.array + self.planetary.x.array

    def tendency(self) -> NDArray:
        """Return the explicit tendencies (3, owned) of the state just diagnosed."""
        cells = self.cells
        basis = (cells.dofs, cells.basis, cells.gradient, cells.weight, cells.height)
        flow = (self.streamfunction.function.x.array, self.potential.function.x.array, self.absolute.x.array)
        if self.projects:
            with self._run.assembling():
                total = np.zeros(len(self.absolute.x.array))
                tangent.advection(*basis, *flow, self.depth.function.x.array, self.upwind, self._limits, total)
                total = self._collect(total)
            self._solve(self.advection, total)
        with self._run.assembling():
            sums = np.zeros((4, len(self.absolute.x.array)))
            tangent.tendencies(*basis, *flow, self.advection.function.x.array, self.depth.function.x.array,
                               self.reference, self.upwind, *self._across, self._limits, sums)
            rows = [self._collect(row) for row in sums]
        self._solve(self.kinetic, rows[3])
        rows[1] += self.times(self.stiffness, self.kinetic.values + GRAVITY * self.ground.x.petsc_vec.array)
        if self.viscosity:
            rows[0] -= self.viscosity * self.times(self.stiffness, self.vorticity.values)
        return np.array(rows[:3])

    def _collect(self, sums: NDArray) -> NDArray:
        """Return owned entries with what other ranks have added to them. Collective."""
        with self._product.localForm() as local:
            local.array[:] = sums
        self._product.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        return self._product.array.copy()

    def step(self) -> None:
        """Advance the state just diagnosed by dt, and diagnose it."""
        dt = self.dt
        now = self.tendency()
        if not self.past_tendencies:  # two steps of first order: O(dt²) in all
            self.past_tendencies = [now, now]
            self.past_waves = [np.array([self.times(self.stiffness, self.depth.values), self.state[1]])] * 2
        new = self.state + dt * sum(
            (weight * slope for weight, slope in zip(EXPLICIT[1:], self.past_tendencies, strict=True)),
            start=EXPLICIT[0] * now)
        for weight, (stiff, divergence) in zip(IMPLICIT[1:], self.past_waves, strict=True):
            new[1] += dt * weight * GRAVITY * stiff
            new[2] -= dt * weight * self.reference * divergence
        self._solve(self.depth, new[2] - self.implicit * self.reference * new[1])
        stiff = self.times(self.stiffness, self.depth.values)
        new[1] += self.implicit * GRAVITY * stiff
        self._without_means(new)
        new[2] -= self.implicit * self.reference * new[1]  # not M h: ∫ h is conserved though h is solved for roughly
        self.state = new
        self.past_tendencies = [now, *self.past_tendencies[:-1]]
        self.past_waves = [np.array([stiff, new[1]]), *self.past_waves[:-1]]
        self.diagnose()

    def diagnostics(self) -> Diagnostics:
        """Return the integrals of the state just diagnosed."""
        sums, peaks, cells = np.zeros(5), np.zeros(2), self.cells
        tangent.integrals(cells.dofs, cells.basis, cells.gradient, cells.weight,
                          self.streamfunction.function.x.array, self.potential.function.x.array,
                          self.absolute.x.array, self.depth.function.x.array, self.ground.x.array, cells.height,
                          GRAVITY, sums, peaks)
        sums[1] = self.state[2].sum()
        self.comm.Allreduce(MPI.IN_PLACE, sums, MPI.SUM)
        self.comm.Allreduce(MPI.IN_PLACE, peaks, MPI.MAX)
        speed, rate = peaks
        wave = DIFFUSION[self.degree] * np.sqrt(GRAVITY * self.reference) / self.smallest_height
        return Diagnostics(mass=float(sums[1]), energy=float(sums[2]), potential_enstrophy=float(sums[3]),
                           divergence_energy=float(sums[4]), speed=float(speed),
                           advective=float(ADVECTION[self.degree] * rate * self.dt), gravity=float(wave * self.dt))

    def errors(self, exact: fem.Function, field: fem.Function | None = None) -> tuple[float, float, float]:
        """Return the relative errors l1, l2 and l∞ of a field (the depth) against an exact one (Williamson's 82–84)."""
        got = (field or self.depth.function).x.array
        totals = []
        for values in (got - exact.x.array, exact.x.array):
            sums = np.zeros(2)
            tangent.norms(self.cells.dofs, self.cells.basis, self.cells.weight, values, sums)
            self.comm.Allreduce(MPI.IN_PLACE, sums, MPI.SUM)
            peak = self.comm.allreduce(float(np.abs(values).max(initial=0.0)), MPI.MAX)
            totals.append(np.array([sums[0], np.sqrt(sums[1]), peak]))
        l1, l2, largest = totals[0] / totals[1]
        return float(l1), float(l2), float(largest)

    def wave(self, number: int) -> tuple[float, float]:
        """Return amplitude in m and longitude in degrees of the crests of a wave around the Earth in the depth.

        Both are those of Σ Y cosⁿ(latitude) exp(−i n longitude), n the wave number: the depth's part in the sectoral
        spherical harmonic.
        """
        if self._sectoral is None:
            x = self.space.tabulate_dof_coordinates()[: len(self.state[0])] / RADIUS
            self._sectoral = (x[:, 0] - 1j * x[:, 1]) ** number  # (cos latitude · e^(−i longitude))ⁿ
        part = complex(self.comm.allreduce(complex((self._sectoral * self.state[2]).sum()), MPI.SUM))
        scale = 4 * np.pi * RADIUS**2
        return abs(part) / scale, float(-np.degrees(np.angle(part)) / number)

    def extremes(self, function: fem.Function) -> tuple[float, float]:
        """Return smallest and largest nodal value."""
        vector = function.x.petsc_vec
        return float(vector.min()[1]), float(vector.max()[1])

    # ---- what a checkpoint holds ------------------------------------------------------------------------

    def fields(self) -> dict[str, NDArray]:
        """Return everything that the next steps depend on, owned entries by name."""
        named = {name: row for name, row in zip(("Z", "D", "Y"), self.state, strict=True)}
        for unknown in self.unknowns:
            named |= {f"{unknown.function.name}_{age}": values for age, values in enumerate(unknown.past)}
        for age, slopes in enumerate(self.past_tendencies):
            named |= {f"slope{row}_{age}": slopes[row] for row in range(3)}
        for age, waves in enumerate(self.past_waves):
            named |= {f"wave{row}_{age}": waves[row] for row in range(2)}
        return named

    def begin_from(self, named: dict[str, NDArray]) -> None:
        """Begin with the state of a checkpoint, at time 0 and with any time step."""
        self.state = np.array([named[name] for name in ("Z", "D", "Y")])
        for unknown in self.unknowns:
            name = f"{unknown.function.name}_0"
            if name in named:
                unknown.values[:] = named[name]
                unknown.function.x.scatter_forward()
        self.depth.begin([self.depth.values.copy()])
        self._bound()

    def restore(self, named: dict[str, NDArray]) -> None:
        """Put back what `fields` returned."""
        def ages(stems: Sequence[str]) -> list[list[NDArray]]:
            found: list[list[NDArray]] = []
            while all(f"{stem}_{len(found)}" in named for stem in stems):
                found.append([named[f"{stem}_{len(found)}"] for stem in stems])
            return found

        self.state = np.array([named[name] for name in ("Z", "D", "Y")])
        for unknown in self.unknowns:
            unknown.begin([values[0] for values in ages([unknown.function.name])])
        self.past_tendencies = [np.array(rows) for rows in ages(["slope0", "slope1", "slope2"])]
        self.past_waves = [np.array(rows) for rows in ages(["wave0", "wave1"])]
        self.absolute.x.array[:] = self.vorticity.function.x.array + self.planetary.x.array


