"""The barotropic vorticity equation on the rotating sphere: a Rossby–Haurwitz wave that turns without changing.

    mpirun -n 2 python problems/vorticity.py -level 3 -days 7

    ∂ζ/∂t + u·∇(ζ + f) = 0,   u = n × ∇ψ,   ∇²ψ = ζ,   f = 2 Ω sin(latitude)

Curved P2 triangles on an icosahedral sphere, four Runge–Kutta stages a step. Every stage solves a Poisson equation
(options prefix `poisson_`, singular: constants) and a mass matrix (prefix `mass_`), both constant in time: programmed
once, used for thousands of right-hand sides. Options without a prefix, such as -ksp_type, hold for both; prefixed
ones overrule them.

The mesh has 20·4^level cells; -n N (cells along an edge of the icosahedron) says the same with N = 2^level.
The wave of Haurwitz (Tellus 2, 1940) with wave number 4 as in test case 6 of Williamson et al. (Journal of
Computational Physics 102, 1992) is an exact solution: it turns by 12.2 degrees a day to the east.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import analogpde.fem  # noqa: F401 - first: it loads MPI, PETSc and DOLFINx in the order they need

# isort: split
import numpy as np
import ufl
from dolfinx import fem
from numpy.typing import NDArray
from petsc4py import PETSc

from analogpde.errors import InvalidInput
from analogpde.fem import picture
from analogpde.fem.forms import integral, matrix, vector, zero_vector
from analogpde.fem.run import Run, Script
from analogpde.fem.sphere import MAX_LEVEL, create_sphere
from analogpde.fem.sphere_plan import chosen_level
from analogpde.options import Option

# Williamson et al. 1992, section 2 and test case 6.
RADIUS = 6.37122e6  # m
OMEGA = 7.292e-5  # 1/s, rotation of the Earth
DAY = 86400.0  # s
WAVE_NUMBER = 4
SOLID_ROTATION = AMPLITUDE = 7.848e-6  # 1/s, ω and K

OPTIONS = (
    Option("case", "choice", "rh4", "What to solve: the Rossby-Haurwitz wave of wave number 4.", choices=("rh4",)),
    Option("level", "int", 3, "Subdivisions of the icosahedron: 20*4^level cells.", low=0, high=MAX_LEVEL),
    Option("dim", "choice", "2", "The sphere is a surface.", choices=("2",)),
    Option("n", "int", None, "Cells along an edge of the icosahedron, a power of two: another way to say -level.",
           low=1, high=2**MAX_LEVEL),
    Option("days", "real", 7.0, "Simulated time in days; -t_end says it in seconds.", low=0.0, high=3650.0,
           open_low=True),
)

ANGULAR_SPEED = (WAVE_NUMBER * (3 + WAVE_NUMBER) * SOLID_ROTATION - 2 * OMEGA) / ((1 + WAVE_NUMBER) * (2 + WAVE_NUMBER))
"""Of the wave, 1/s to the east (Haurwitz 1940)."""


def exact_vorticity(time: float) -> Callable[[NDArray], NDArray]:
    """Return ζ in 1/s at `time` (s) as a function of coordinates (3, count)."""

    def vorticity(x: NDArray) -> NDArray:
        longitude, sine = np.arctan2(x[1], x[0]), x[2] / np.linalg.norm(x, axis=0)
        cosine = np.sqrt(np.maximum(1 - sine**2, 0.0))
        r = WAVE_NUMBER
        wave = (r**2 + 3 * r + 2) * cosine**r * np.cos(r * (longitude - ANGULAR_SPEED * time))
        return 2 * SOLID_ROTATION * sine - AMPLITUDE * sine * wave

    return vorticity


class BarotropicVorticity:
    """The semi-discrete equation; its state is Z = M ζ. Collective.

    In the dual variable Z the tendency needs no mass solve, and ∫ζ is conserved to rounding, because the test function
    1 has no gradient.

    Args:
        run: the run.
        level: of the icosphere.
        degree: of the Lagrange elements.
    """

    def __init__(self, run: Run, level: int, degree: int) -> None:
        self.comm = run.comm
        self.mesh = create_sphere(run.comm, level, RADIUS)
        self.space = fem.functionspace(self.mesh, ("Lagrange", degree))
        self.vorticity = fem.Function(self.space, name="vorticity")
        self.streamfunction = fem.Function(self.space, name="streamfunction")
        planetary = fem.Function(self.space)
        planetary.interpolate(lambda x: 2 * OMEGA * x[2] / np.linalg.norm(x, axis=0))
        trial, test = ufl.TrialFunction(self.space), ufl.TestFunction(self.space)
        # Exact for the triple product on flat cells; the curvature adds terms of higher order.
        self.dx = ufl.dx(metadata={"quadrature_degree": 2 * degree + 2})
        with run.assembling():
            self.mass = matrix(trial * test * self.dx)
            stiffness = matrix(ufl.inner(ufl.grad(trial), ufl.grad(test)) * self.dx)
            constants = PETSc.NullSpace().create(constant=True, comm=run.comm)
            stiffness.setNullSpace(constants)
            stiffness.setNearNullSpace(constants)
            velocity = ufl.cross(ufl.CellNormal(self.mesh), ufl.grad(self.streamfunction))
            self._flux = fem.form((self.vorticity + planetary) * ufl.inner(velocity, ufl.grad(test)) * self.dx)
        self._run = run
        self.poisson = run.system(stiffness, self.space, "poisson_")
        self.mass_system = run.system(self.mass, self.space, "mass_", local=True)
        self._b = zero_vector(self.space)

    def start(self, vorticity: Callable[[NDArray], NDArray]) -> PETSc.Vec:
        """Return Z of a vorticity field, its mean removed (Stokes: ∫ζ = 0 on a closed surface). Collective."""
        self.vorticity.interpolate(vorticity)
        area = integral(self.comm, fem.Constant(self.mesh, 1.0) * self.dx)
        self.vorticity.x.array[:] -= integral(self.comm, self.vorticity * self.dx) / area
        Z = zero_vector(self.space)
        self.mass.mult(self.vorticity.x.petsc_vec, Z)
        return Z

    def diagnose(self, Z: PETSc.Vec) -> None:
        """Solve for streamfunction and vorticity. Collective."""
        for system, function, sign in (
            (self.poisson, self.streamfunction, -1.0),
            (self.mass_system, self.vorticity, 1.0),
        ):
            Z.copy(self._b)
            self._b.scale(sign)
            system.solve(self._b, function.x.petsc_vec)
            function.x.scatter_forward()

    def tendency(self, Z: PETSc.Vec, out: PETSc.Vec) -> None:
        """Put dZ/dt = ∫ (ζ + f) u·∇w into `out`. Collective."""
        self.diagnose(Z)
        with self._run.assembling():
            vector(self._flux, out)

    def energy(self, Z: PETSc.Vec) -> float:
        """Return ½ ∫|u|² of the state just diagnosed, m⁴/s². Collective."""
        return -0.5 * float(self.streamfunction.x.petsc_vec.dot(Z))

    def enstrophy(self, Z: PETSc.Vec) -> float:
        """Return ½ ∫ζ² of the state just diagnosed, m²/s². Collective."""
        return 0.5 * float(self.vorticity.x.petsc_vec.dot(Z))

    def error(self, time: float) -> tuple[float, fem.Function]:
        """Return the relative L2 error of ζ at `time` (s), and the error as a function. Collective."""
        exact = fem.Function(self.space)
        exact.interpolate(exact_vorticity(time))
        difference = fem.Function(self.space, name="error")
        difference.x.array[:] = self.vorticity.x.array - exact.x.array
        ratio = integral(self.comm, difference**2 * self.dx) / integral(self.comm, exact**2 * self.dx)
        return math.sqrt(ratio), difference


class RungeKutta4:
    """The classical Runge–Kutta scheme for one vector.

    Args:
        tendency: puts the time derivative of its first argument into the second.
        state: a vector of the right layout.
    """

    def __init__(self, tendency: Callable[[PETSc.Vec, PETSc.Vec], None], state: PETSc.Vec) -> None:
        self._tendency = tendency
        self._slope, self._stage, self._sum = (state.duplicate() for _ in range(3))

    def advance(self, state: PETSc.Vec, dt: float) -> None:
        """Replace `state` by the one `dt` seconds later. Collective."""
        state.copy(self._stage)
        state.copy(self._sum)
        for weight, ahead in ((dt / 6, dt / 2), (dt / 3, dt / 2), (dt / 3, dt), (dt / 6, 0.0)):
            self._tendency(self._stage, self._slope)
            self._sum.axpy(weight, self._slope)
            if ahead:
                self._stage.waxpy(ahead, self._slope, state)
        self._sum.copy(state)


@dataclass(frozen=True)
class Plan:
    """Level and time stepping of a run."""

    level: int
    dt: float
    steps: int


def plan(run: Run) -> Plan:
    """Return what the options ask for.

    Raises:
        InvalidInput: they contradict each other, or do not fit a sphere.
    """
    level = chosen_level(run)
    if "days" in run.given and "t_end" in run.given:
        raise InvalidInput("-t_end", run["t_end"], "either -days or -t_end")
    t_end = run["t_end"] if "t_end" in run.given else run["days"] * DAY
    steps = run.count_steps(t_end, run["dt"])
    return Plan(level, t_end / steps, steps)


def solve(run: Run) -> None:
    """Run the wave and compare it with its exact rotation."""
    todo = plan(run)
    model = BarotropicVorticity(run, todo.level, run["degree"])
    Z = model.start(exact_vorticity(0.0))
    end = todo.steps * todo.dt
    run.describe("Barotropic vorticity equation, Rossby-Haurwitz wave 4", case=run["case"], level=todo.level,
                 degree=run["degree"], **{"dt s": todo.dt, "days": end / DAY, "steps": todo.steps})
    model.diagnose(Z)
    energy, enstrophy = model.energy(Z), model.enstrophy(Z)
    stepper = RungeKutta4(model.tendency, Z)
    shots = run.snapshot_steps(todo.steps)
    fields = [model.vorticity, model.streamfunction]
    with run.writer(fields) as writer, run.progress(todo.steps, "vorticity") as progress:
        writer.write(0.0)
        for step in range(1, todo.steps + 1):
            stepper.advance(Z, todo.dt)
            if step in shots or step == todo.steps:
                model.diagnose(Z)
                writer.write(step * todo.dt)
            progress.step(f"day {step * todo.dt / DAY:.2f}")
    error, difference = model.error(end)
    judged = todo.level >= 3 and run["degree"] >= 2 and end <= 7 * DAY
    run.answer("relative L2 error of the vorticity", error, **(
        {"expected": 0.0, "tolerance": 1e-2, "source": "exact rotation, Haurwitz 1940"} if judged else {}))
    run.answer("relative change of kinetic energy", model.energy(Z) / energy - 1)
    run.answer("relative change of enstrophy", model.enstrophy(Z) / enstrophy - 1)
    run.answer("rotation of the exact wave", math.degrees(ANGULAR_SPEED) * DAY, "degrees/day")
    run.draw(lambda path: draw(model, difference, end, path), "Vorticity and its error at the end")


def draw(model: BarotropicVorticity, difference: fem.Function, time: float, path: Path) -> None:
    """Draw vorticity and error. Collective."""
    scaled: list[Any] = []
    for function in (model.vorticity, difference):
        scaled.append(fem.Function(model.space))
        scaled[-1].x.array[:] = 1e5 * function.x.array
    label = "10⁻⁵ 1/s"
    picture.globes(path, [(scaled[0], "vorticity", label), (scaled[1], "minus the exact rotation", label)],
                   title=f"Rossby–Haurwitz wave 4, day {time / DAY:g}")


SCRIPT = Script("vorticity", __doc__, OPTIONS, solve, {"degree": 2, "dt": 1800.0}, ("poisson_", "mass_"),
                {"mesh": "vorticity.py makes its own sphere"})
main = SCRIPT.main

if __name__ == "__main__":
    sys.exit(main())
