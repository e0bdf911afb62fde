"""Heat conduction in a solid: ρc ∂T/∂t = ∇·(k ∇T) + q, with convection k ∂T/∂n = h (T∞ − T) on parts of the surface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.mesh import Mesh, MeshTags

from analogpde.fem.forms import Dirichlet, matrix, vector
from analogpde.fem.stepping import Parabolic


@dataclass(frozen=True)
class Material:
    """A homogeneous, isotropic solid.

    Args:
        conductivity: k in W/(m K).
        density: ρ in kg/m³.
        specific_heat: c in J/(kg K).
        source: where the values come from.
    """

    conductivity: float
    density: float
    specific_heat: float
    source: str = ""


@dataclass(frozen=True)
class Convection:
    """Heat exchange with a fluid.

    Args:
        measure: the part of the surface, a UFL measure.
        coefficient: h in W/(m² K).
        ambient: T∞ in °C.
    """

    measure: ufl.Measure
    coefficient: float
    ambient: float


def per_region(mesh: Mesh, cells: MeshTags, values: Mapping[int, float]) -> fem.Function:
    """Return a cell-wise constant function from values by group number. Collective."""
    function = fem.Function(fem.functionspace(mesh, ("Discontinuous Lagrange", 0)))
    for group, value in values.items():
        # The unknowns of this space have the numbers of the cells.
        function.x.array[cells.find(group)] = value
    function.x.scatter_forward()
    return function


class Conduction:
    """The assembled parts of a heat conduction problem. Collective.

    Args:
        space: Lagrange space of the temperature in °C.
        conductivity: k in W/(m K), a number or a UFL expression.
        capacity: ρc in J/(m³ K), likewise.
        sources: heat generated, pairs of W/m³ and the measure of where.
        convection: the parts of the surface with convection; the rest is insulated.
        dirichlet: prescribed temperatures.
    """

    def __init__(self, space: fem.FunctionSpace, conductivity: Any, capacity: Any, *,
                 sources: Sequence[tuple[float, ufl.Measure]] = (), convection: Sequence[Convection] = (),
                 dirichlet: Dirichlet | None = None) -> None:
        self.space, self.dirichlet = space, dirichlet
        mesh = space.mesh
        T, v = ufl.TrialFunction(space), ufl.TestFunction(space)
        k, rho_c = (fem.Constant(mesh, value) if isinstance(value, float) else value
                    for value in (conductivity, capacity))
        zero = fem.Constant(mesh, 0.0)
        stiffness = ufl.inner(k * ufl.grad(T), ufl.grad(v)) * ufl.dx
        given, lost, offset = zero * v * ufl.dx, zero * v * ufl.dx, zero * v * ufl.dx
        for film in convection:
            h, ambient = fem.Constant(mesh, film.coefficient), fem.Constant(mesh, film.ambient)
            stiffness += h * T * v * film.measure
            lost += h * v * film.measure
            offset += h * ambient * v * film.measure
        for power, measure in sources:
            given += fem.Constant(mesh, power) * v * measure
        # The mass matrix has the stiffness matrix' pattern: both come from all pairs of unknowns of a cell.
        self.mass, self.stiffness = matrix(rho_c * T * v * ufl.dx), matrix(stiffness)
        self._given, self._lost, self._offset = vector(given), vector(lost), vector(offset)
        self._capacity = vector(rho_c * v * ufl.dx)
        self._load = self._given.copy()
        self._load.axpy(1.0, self._offset)
        self.power = float(self._given.sum())
        """Heat generated in the whole body, W."""
        self._offset_power = float(self._offset.sum())
        self.parts = Parabolic(self.mass, self.stiffness, lambda time: self._load, dirichlet)

    def load(self) -> Any:
        """Return the right-hand side of the steady problem, W per unknown (it stays ours)."""
        return self._load

    def stored(self, T: fem.Function) -> float:
        """Return the heat content in J, counted from 0 °C. Collective."""
        return float(self._capacity.dot(T.x.petsc_vec))

    def lost(self, T: fem.Function) -> float:
        """Return the heat that convection carries away, W. Collective."""
        return float(self._lost.dot(T.x.petsc_vec)) - self._offset_power


class EnergyBalance:
    """Adds up the heat that goes in and out of the body over time.

    With the θ-scheme the balance is that of the scheme and closes to the accuracy of the solves; with another scheme it
    is a trapezoidal sum (θ = 1/2) and closes to the accuracy of the time step.

    Args:
        body: the problem.
        T: its temperature, now.
        theta: weight of the end of a step.
    """

    def __init__(self, body: Conduction, T: fem.Function, theta: float) -> None:
        self.body, self.T, self.theta = body, T, theta
        self.start = body.stored(T)
        self._loss = body.lost(T)
        self.supplied = 0.0
        self.carried_away = 0.0

    def step(self, dt: float) -> None:
        """Account for a step of `dt` seconds that has just been made. Collective."""
        loss = self.body.lost(self.T)
        self.carried_away += dt * (self.theta * loss + (1 - self.theta) * self._loss)
        self.supplied += dt * self.body.power
        self._loss = loss

    @property
    def loss(self) -> float:
        """What convection carries away now, W."""
        return self._loss

    def imbalance(self) -> float:
        """Return |supplied − stored − carried away| relative to what was supplied. Collective."""
        stored = self.body.stored(self.T) - self.start
        return abs(self.supplied - stored - self.carried_away) / max(abs(self.supplied), np.finfo(float).tiny)
