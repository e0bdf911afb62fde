"""Dry convection in a vertical plane: vorticity, streamfunction and potential temperature, without sound.

The mass flux ρ₀u = (−ψ_z, ψ_x) has no divergence, ρ₀(z) being the density of an atmosphere of constant potential
temperature θ₀. With θ' the departure from θ₀, s = θ₀/(θ₀ + θ') and ω the curl of s u,

    ∂(ρ₀θ')/∂t + ∇·(ρ₀u θ') = ∇·(ρ₀ν∇θ')
    ∂ω/∂t + ∇·(u ω) = −g ∂s/∂x + curl(s ∇½|u|²) + ν∇²ω,   ∇·(s/ρ₀ ∇ψ) = ω

are the pseudo-incompressible equations (Durran, Journal of the Atmospheric Sciences 46 (1989) 1453–1461): the pressure
force c_p θ ∇π' is a gradient once it is divided by θ. The anelastic ones (Ogura and Phillips, ibid. 19 (1962) 173–179)
have s = 1 except in the buoyancy, g ∂(θ'/θ₀)/∂x; Boussinesq's a constant ρ₀ too.

Walls are free-slip and insulated: ψ = ω = 0, which makes an axis of symmetry a wall. The diffusion of ω neglects
products of ν and θ'.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ufl
from dolfinx import fem, mesh
from mpi4py import MPI
from numpy.typing import NDArray
from petsc4py import PETSc

from analogpde.errors import AnalogError
from analogpde.fem.forms import Dirichlet, integral, matrix, vector, zero_vector
from analogpde.fem.run import Run

EQUATIONS = ("pseudo_incompressible", "anelastic", "boussinesq")

GRAVITY, SPECIFIC_HEAT, GAS_CONSTANT, SURFACE_PRESSURE = 9.81, 1004.0, 287.0, 1e5
"""m/s², J/(kg K), J/(kg K), Pa: Straka et al. 1993."""

COURANT_LIMIT = 0.28
"""Largest speed · dt/(distance of nodes) at which no wave of wave number below the grid's grows, by von Neumann's
analysis of BDF3 with third-order extrapolation and quadratic elements on the line, without diffusion; with
diffusion it is larger."""


class UnstableStep(AnalogError):
    """The time step is too long for the wind."""


@dataclass(frozen=True)
class Atmosphere:
    """Air at rest of constant potential temperature.

    Args:
        theta: θ₀ in K.
        viscosity: ν of momentum and heat, m²/s.
        equations: one of EQUATIONS.
    """

    theta: float
    viscosity: float
    equations: str

    def exner(self, height: Any) -> Any:
        """Return T/θ at a height in m."""
        return 1 - GRAVITY * height / (SPECIFIC_HEAT * self.theta)

    def density(self, height: NDArray) -> NDArray:
        """Return ρ₀ in kg/m³ at heights in m."""
        surface = SURFACE_PRESSURE / (GAS_CONSTANT * self.theta)
        if self.equations == "boussinesq":
            return np.full_like(height, surface)
        return surface * self.exner(height) ** (SPECIFIC_HEAT / GAS_CONSTANT - 1)


class BuoyantFlow:
    """The equations in space and their BDF3 scheme in time. Collective.

    The scheme is implicit in diffusion and extrapolates the rest, as well as the small part of the streamfunction's
    matrix that changes with θ'; so the three matrices are constant. Each step solves with each of them once. The state
    of θ' is Z = ∫ρ₀θ'w for every test function w, updated by what the solve says of the diffusion rather than by M θ':
    1·Z = ∫ρ₀θ' stays constant to rounding, however inexact the solves are.

    The two steps before the first are extrapolated linearly, which costs an error of O(dt²) once.

    Args:
        run: the run; its systems get the prefixes `poisson_`, `vorticity_` and `temperature_`.
        domain: mesh of the plane (x, z), of quadrilaterals along the axes.
        degree: of the Lagrange elements.
        air: what flows.
        dt: time step in s.
        temperature: θ' at t = 0 in K, of coordinates (3, count).
    """

    def __init__(self, run: Run, domain: mesh.Mesh, degree: int, air: Atmosphere, dt: float,
                 temperature: Callable[[NDArray], NDArray]) -> None:
        self.comm, self.air, self.dt, self.time = run.comm, air, dt, 0.0
        self.space = fem.functionspace(domain, ("Lagrange", degree))
        self.theta = fem.Function(self.space, name="potential_temperature")
        self.omega = fem.Function(self.space, name="vorticity")
        self.psi = fem.Function(self.space, name="streamfunction")
        self.theta.interpolate(temperature)
        self._density = fem.Function(self.space)
        self._density.interpolate(lambda x: air.density(x[1]))
        # Exact for products of three functions, one of them undifferentiated: the discrete energy balance needs it.
        self._dx = ufl.dx(metadata={"quadrature_degree": max(2 * degree, 3 * degree - 1)})
        walls = mesh.locate_entities_boundary(domain, 1, lambda x: np.full(x.shape[1], True))
        self._walls = Dirichlet(self.space, walls)
        self._guess = fem.Function(self.space)  # ψ extrapolated
        self._run = run
        with run.assembling():
            self._assemble()
        self._history: list[tuple[PETSc.Vec, ...]] = []  # newest first: Z, its tendency, M ω, its tendency, ψ, θ', ω
        self._b, self._Z, self._W, self._flux, self._torque = (zero_vector(self.space) for _ in range(5))
        self._mass_heat.mult(self.theta.x.petsc_vec, self._Z)
        self.first_heat = self.heat()
        self.energy_forms()
        self.diagnose()

    def _assemble(self) -> None:
        """Assemble what is constant, compile what is not."""
        trial, test, dx, rho = ufl.TrialFunction(self.space), ufl.TestFunction(self.space), self._dx, self._density
        implicit = self.dt * self.air.viscosity
        self._mass_heat = matrix(rho * trial * test * dx)
        self._diffusion = matrix(rho * ufl.inner(ufl.grad(trial), ufl.grad(test)) * dx)
        self._mass = matrix(trial * test * dx)
        heat = self._mass_heat.copy()
        heat.scale(11 / 6)
        heat.axpy(implicit, self._diffusion, structure=PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
        spin = matrix((11 / 6 * trial * test + implicit * ufl.inner(ufl.grad(trial), ufl.grad(test))) * dx)
        poisson = matrix(ufl.inner(ufl.grad(trial), ufl.grad(test)) / rho * dx)
        for constrained in (spin, poisson):
            self._walls.constrain(constrained)
        # the answer to a point decays over this length, that of the diffusion in a step: within a cell or two
        reach, plane = np.sqrt(6 / 11 * implicit), self.space.mesh
        numbers = np.arange(plane.topology.index_map(2).size_local, dtype=np.int32)
        local = bool(reach < self.comm.allreduce(float(plane.h(2, numbers).min(initial=np.inf)), MPI.MIN))
        self.temperature_system = self._run.system(heat, self.space, "temperature_", local=local)
        self.vorticity_system = self._run.system(spin, self.space, "vorticity_", local=local)
        self.poisson_system = self._run.system(poisson, self.space, "poisson_")

        psi, theta, omega, theta0 = self.psi, self.theta, self.omega, self.air.theta
        flux = ufl.as_vector([-psi.dx(1), psi.dx(0)])
        self.inertia: Any = fem.Constant(self.space.mesh, 1.0)  # s
        gradient = ufl.grad(test)
        torque = omega / rho * ufl.inner(flux, gradient)
        self._varying = None
        if self.air.equations == "pseudo_incompressible":
            s = self.inertia = theta0 / (theta0 + theta)
            kinetic = 0.5 * ufl.inner(flux, flux) / rho**2
            # curl(s∇q) = −curl(q∇s), by parts: no derivative of the velocity.
            torque += (-GRAVITY * s.dx(0)) * test + kinetic * (s.dx(1) * gradient[0] - s.dx(0) * gradient[1])
            rest = (s - 1) / rho * ufl.inner(ufl.grad(self._guess), gradient)
            self._varying = fem.form(rest * dx)
        else:
            torque += GRAVITY / theta0 * theta.dx(0) * test
        self._torque_form = fem.form(torque * dx)
        self._flux_form = fem.form(theta * ufl.inner(flux, gradient) * dx)
        cells = fem.functionspace(self.space.mesh, ("DG", max(1, self.space.element.basix_element.degree - 1), (2,)))
        self.wind = fem.Function(cells, name="wind")
        self._wind = fem.Expression(flux / rho, cells.element.interpolation_points)

    def energy_forms(self) -> None:
        """Compile the energies: ½∫ρ₀s|u|² and ∫ρ₀(s − 1)g z, or what the equations have in their place."""
        psi, rho = self.psi, self._density
        z = ufl.SpatialCoordinate(self.space.mesh)[1]
        self._kinetic = fem.form(0.5 * self.inertia / rho * ufl.inner(ufl.grad(psi), ufl.grad(psi)) * self._dx)
        lightness = -self.theta / self.air.theta
        if self.air.equations == "pseudo_incompressible":
            lightness = self.inertia - 1
        self._potential = fem.form(rho * lightness * GRAVITY * z * self._dx)

    def diagnose(self) -> None:
        """Solve for the streamfunction of the present vorticity. Collective."""
        b = self._b
        if self._varying is not None:
            with self._run.assembling():
                vector(self._varying, b)
        else:
            b.set(0.0)
        self._mass.mult(self.omega.x.petsc_vec, self._W)
        b.axpby(-1.0, -1.0, self._W)
        self._walls.lift(b, (), self.time)
        self.poisson_system.solve(b, self.psi.x.petsc_vec)
        self.psi.x.scatter_forward()

    def step(self) -> None:
        """Go one step forward. Collective."""
        with self._run.assembling():
            vector(self._flux_form, self._flux)
            vector(self._torque_form, self._torque)
        now = tuple(v.copy() for v in (self._Z, self._flux, self._W, self._torque, self.psi.x.petsc_vec,
                                       self.theta.x.petsc_vec, self.omega.x.petsc_vec))
        if not self._history:
            self._begin(now)
        self._history.insert(0, now)
        for forgotten in self._history[3:]:
            for v in forgotten:
                v.destroy()
        del self._history[3:]
        dt, viscosity = self.dt, self.air.viscosity
        for place, function, system in ((0, self.theta, self.temperature_system),
                                        (2, self.omega, self.vorticity_system)):
            b, x = self._b, function.x.petsc_vec
            b.set(0.0)
            self._extrapolate(5 + place // 2, x)
            for past, mass, explicit in zip(self._history, (3.0, -1.5, 1 / 3), (3.0, -3.0, 1.0), strict=True):
                b.axpy(mass, past[place])
                b.axpy(dt * explicit, past[place + 1])
            if function is self.omega:
                self._walls.lift(b, (), self.time)
            system.solve(b, x)
            function.x.scatter_forward()
            if function is self.theta:
                self._diffusion.mult(x, self._Z)
                self._Z.aypx(-dt * viscosity, b)
                self._Z.scale(6 / 11)
        # The next ψ is guessed for the solver, and for the part of its equation that changes.
        self._extrapolate(4, self._guess.x.petsc_vec)
        self._guess.x.scatter_forward()
        self.psi.x.array[:] = self._guess.x.array
        self.time += dt
        self.diagnose()

    def _extrapolate(self, place: int, into: PETSc.Vec) -> None:
        """Put what the last three states say of the next into `into`."""
        into.set(0.0)
        for past, weight in zip(self._history, (3.0, -3.0, 1.0), strict=True):
            into.axpy(weight, past[place])

    def _begin(self, now: tuple[PETSc.Vec, ...]) -> None:
        """Make up the two steps before the first."""
        loss = self._diffusion.createVecLeft()
        self._diffusion.mult(self.theta.x.petsc_vec, loss)
        Z, flux, W, torque, *fields = now
        for age in (1, 2):
            before, spin = Z.copy(), W.copy()
            before.axpy(-age * self.dt, flux)
            before.axpy(age * self.dt * self.air.viscosity, loss)
            spin.axpy(-age * self.dt, torque)
            self._history.append((before, flux.copy(), spin, torque.copy(), *(field.copy() for field in fields)))
        loss.destroy()

    def heat(self) -> float:
        """Return ∫ρ₀θ' of the state, K kg/m. Collective."""
        return float(self._Z.sum())

    def heat_of_field(self) -> float:
        """Return ∫ρ₀θ' of the field θ', which holds what the last solve left, K kg/m. Collective."""
        self._mass_heat.mult(self.theta.x.petsc_vec, self._b)
        return float(self._b.sum())

    def energies(self) -> tuple[float, float]:
        """Return kinetic and potential energy in J/m; the latter is zero without θ'. Collective."""
        return integral(self.comm, self._kinetic), integral(self.comm, self._potential)

    def range(self, function: fem.Function) -> tuple[float, float]:
        """Return the smallest and the largest nodal value of a scalar function. Collective."""
        owned = function.x.array[: function.function_space.dofmap.index_map.size_local]
        low = self.comm.allreduce(float(owned.min(initial=math.inf)), MPI.MIN)
        return low, self.comm.allreduce(float(owned.max(initial=-math.inf)), MPI.MAX)

    def winds(self) -> tuple[tuple[float, float], tuple[float, float], float]:
        """Return the ranges of horizontal and vertical wind and the largest |u| + |w|, m/s. Collective."""
        self.wind.interpolate(self._wind)
        parts = self.wind.x.array.reshape(-1, 2)
        both = np.hstack([parts, -parts, np.abs(parts).sum(axis=1, keepdims=True)])
        ends = both.max(axis=0, initial=-math.inf)
        east, up, west, down, fast = (self.comm.allreduce(float(end), MPI.MAX) for end in ends)
        return (-west, east), (-down, up), fast

    def nodes(self, function: fem.Function) -> tuple[NDArray, NDArray, NDArray] | None:
        """Return x, z and values (z, x) of a function on the nodes of a rectangular mesh: on rank 0. Collective."""
        owned = self.space.dofmap.index_map.size_local
        points = self.space.tabulate_dof_coordinates()[:owned, :2]
        parts = self.comm.gather((points, function.x.array[:owned]))
        if parts is None:
            return None
        points, values = (np.concatenate(part) for part in zip(*parts, strict=True))
        columns, rows = (np.unique(np.round(points[:, i], 6), return_inverse=True) for i in (0, 1))
        grid = np.full((len(rows[0]), len(columns[0])), math.nan)
        grid[rows[1], columns[1]] = values
        return columns[0], rows[0], grid
