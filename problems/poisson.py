"""Poisson's equation −∇·(a ∇u) = f: manufactured solutions, the L-shape, a lognormal coefficient.

    mpirun -n 2 python problems/poisson.py -dim 3 -degree 2 -n 16 -refine 2 -verify

Cases:
  manufactured  unit square or cube, a smooth exact solution; the L2 error falls as h^(degree+1)
  lshape        the L-shaped domain (−1,1)² without its lower right quarter, u = r^(2/3) sin(2φ/3);
                the corner limits the L2 order to 4/3 on uniform meshes, whatever the degree
  lognormal     flow from left to right through rock of random permeability a = exp(σ g), g a Gaussian
                field; answers the effective permeability
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import analogpde.fem  # noqa: F401 - first: it loads MPI, PETSc and DOLFINx in the order they need

# isort: split
import numpy as np
import ufl
from dolfinx import fem, mesh
from mpi4py import MPI
from numpy.typing import NDArray

from analogpde.errors import InvalidInput
from analogpde.fem import named_mesh, picture
from analogpde.fem.forms import Dirichlet, integral, matrix, vector
from analogpde.fem.render import View
from analogpde.fem.run import Run, Script
from analogpde.options import Option

OPTIONS = (
    Option("case", "choice", "manufactured", "What to solve.", choices=("manufactured", "lshape", "lognormal")),
    Option("refine", "int", 1, "Levels: solve with n, 2n, 4n … cells per side and print the order.", low=1, high=8),
    Option("sigma", "real", 1.0, "Lognormal: standard deviation of log a.", low=0.0, high=10.0),
    Option("correlation", "real", 0.1, "Lognormal: correlation length, in domain sides.", low=0.001, high=10.0),
    Option("seed", "int", 0, "Lognormal: seed of the random field.", low=0, high=2**63 - 1),
)

MODES = 256
"""Random Fourier modes of the Gaussian field: its values are then normal to a few per cent in the fourth moment."""


@dataclass(frozen=True)
class Discrete:
    """A discretised problem.

    Args:
        space: of the solution.
        a, L: bilinear and linear form.
        dirichlet: prescribed values.
        exact: the exact solution in UFL, None if unknown.
        fields: coefficients worth writing beside the solution.
        answers: computes physical answers from the solution: tuples (name, value, unit, expected).
    """

    space: fem.FunctionSpace
    a: ufl.Form
    L: ufl.Form
    dirichlet: Dirichlet
    exact: Any = None
    fields: tuple[fem.Function, ...] = ()
    answers: Callable[[fem.Function], list[tuple[str, float, str, float | None]]] = field(default=lambda _: [])


def unit_mesh(run: Run, n: int) -> mesh.Mesh:
    """Return the mesh of the command line: a file, or n cells per side of the unit square or cube. Collective."""
    if run["mesh"] is not None:
        return named_mesh.read(run.comm, run["mesh"]).mesh
    if run["dim"] == 2:
        return mesh.create_unit_square(run.comm, n, n)
    return mesh.create_unit_cube(run.comm, n, n, n)


def manufactured(run: Run, n: int) -> Discrete:
    """u = exp(x₀) Π sin(π xᵢ), i ≥ 1: neither symmetric nor zero on the boundary. Works on any mesh."""
    domain = unit_mesh(run, n)
    dimension = domain.geometry.dim
    space = fem.functionspace(domain, ("Lagrange", run["degree"]))
    x = ufl.SpatialCoordinate(domain)
    exact = ufl.exp(x[0])
    for i in range(1, dimension):
        exact *= ufl.sin(np.pi * x[i])
    factor = (dimension - 1) * np.pi**2 - 1  # −∇²u = factor · u
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    dx = ufl.dx(metadata={"quadrature_degree": 2 * run["degree"] + 2})

    def boundary(points: NDArray, _: float) -> NDArray:
        return np.exp(points[0]) * np.prod(np.sin(np.pi * points[1:dimension]), axis=0)

    dirichlet = Dirichlet(space, outer_facets(domain), boundary)
    return Discrete(space, ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, factor * exact * v * dx, dirichlet, exact)


def outer_facets(domain: mesh.Mesh) -> NDArray:
    """Return the facets on the boundary. Collective."""
    domain.topology.create_connectivity(domain.topology.dim - 1, domain.topology.dim)
    return mesh.exterior_facet_indices(domain.topology)


def l_shape(run: Run, n: int) -> Discrete:
    """The re-entrant corner: u = r^(2/3) sin(2φ/3), harmonic, zero on the corner's sides (φ = 0 and 3π/2)."""
    if run["dim"] == 3 or run["mesh"] is not None:
        raise InvalidInput("-case", "lshape", "a two-dimensional case on its own mesh", "Leave -dim 3 and -mesh away.")
    if n % 2:
        raise InvalidInput("-n", n, "an even number of cells per side for the L-shape")
    domain = l_mesh(run.comm, n)
    space = fem.functionspace(domain, ("Lagrange", run["degree"]))
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    x = ufl.SpatialCoordinate(domain)
    # Counted from the bisector of the domain, so that atan2 jumps in the cut-out quarter.
    angle = ufl.atan2(-x[0] - x[1], x[1] - x[0]) + 0.75 * np.pi
    exact = (x[0] ** 2 + x[1] ** 2) ** (1 / 3) * ufl.sin(2 / 3 * angle)

    def boundary(points: NDArray, _: float) -> NDArray:
        turned = np.arctan2(-points[0] - points[1], points[1] - points[0]) + 0.75 * np.pi
        return np.hypot(points[0], points[1]) ** (2 / 3) * np.sin(2 / 3 * turned)

    zero = fem.Constant(domain, 0.0)
    dirichlet = Dirichlet(space, outer_facets(domain), boundary)
    return Discrete(space, ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, zero * v * ufl.dx, dirichlet, exact)


def l_mesh(comm: MPI.Comm, n: int) -> mesh.Mesh:
    """Return the L-shaped domain with n cells (pairs of triangles) along its long sides. Collective."""
    import basix.ufl

    points, cells = np.empty((0, 2)), np.empty((0, 3), dtype=np.int64)
    if comm.rank == 0:
        i, j = (index.ravel() for index in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
        inside = (i < n // 2) | (j >= n // 2)
        corner = (i * (n + 1) + j)[inside]
        squares = np.stack([corner, corner + n + 1, corner + n + 2, corner + 1], axis=1)
        used, numbers = np.unique(np.concatenate([squares[:, [0, 1, 2]], squares[:, [0, 2, 3]]]), return_inverse=True)
        points = np.stack([used // (n + 1), used % (n + 1)], axis=1) * (2.0 / n) - 1.0
        cells = numbers.reshape(-1, 3).astype(np.int64)
    element = basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))
    return mesh.create_mesh(comm, cells, element, points)


def gaussian_field(points: NDArray, dimension: int, correlation: float, seed: int) -> NDArray:
    """Return a Gaussian field of unit variance and covariance exp(−|r|²/(2 l²)) at points (3, count).

    A sum of plane waves with normal wave vectors and random phases (Kraichnan, Physics of Fluids 13, 1970): a function
    of position alone, so the same on any mesh and any number of ranks.
    """
    random = np.random.default_rng(seed)
    # Always three components, so that a slice of the cube is not a different seed.
    waves = random.normal(size=(MODES, 3))[:, :dimension] / correlation
    phases = random.uniform(0, 2 * np.pi, MODES)
    value = np.zeros(points.shape[1])
    for wave, phase in zip(waves, phases, strict=True):
        value += np.cos(wave @ points[:dimension] + phase)
    return np.sqrt(2 / MODES) * value


def lognormal(run: Run, n: int) -> Discrete:
    """−∇·(a ∇u) = 0, u = 1 on the left, 0 on the right, no flow through the other sides."""
    if run["mesh"] is not None:
        raise InvalidInput("-mesh", run["mesh"], "no mesh with -case lognormal, which needs the unit square or cube")
    domain = unit_mesh(run, n)
    dimension = domain.topology.dim
    space = fem.functionspace(domain, ("Lagrange", run["degree"]))
    permeability = fem.Function(fem.functionspace(domain, ("Discontinuous Lagrange", 0)), name="permeability")
    permeability.interpolate(
        lambda points: np.exp(run["sigma"] * gaussian_field(points, dimension, run["correlation"], run["seed"]))
    )
    permeability.x.scatter_forward()
    sides = mesh.locate_entities_boundary(domain, dimension - 1, lambda x: np.isclose(x[0], 0) | np.isclose(x[0], 1))
    dirichlet = Dirichlet(space, sides, lambda points, _: 1.0 - points[0])
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)

    def answers(solution: fem.Function) -> list[tuple[str, float, str, float | None]]:
        # The energy of a unit pressure drop over a unit length is the permeability itself.
        flow = ufl.inner(permeability * ufl.grad(solution), ufl.grad(solution)) * ufl.dx
        arithmetic = integral(run.comm, permeability * ufl.dx)
        harmonic = 1 / integral(run.comm, 1 / permeability * ufl.dx)
        low, high = run.comm.allreduce(permeability.x.array.min(), MPI.MIN), run.comm.allreduce(
            permeability.x.array.max(), MPI.MAX)
        return [("effective permeability", integral(run.comm, flow), "", None),
                ("harmonic mean (lower bound)", harmonic, "", None),
                ("arithmetic mean (upper bound)", arithmetic, "", None),
                ("contrast of the permeability", high / low, "", None)]

    zero = fem.Constant(domain, 0.0)
    return Discrete(space, permeability * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, zero * v * ufl.dx, dirichlet,
                    fields=(permeability,), answers=answers)


CASES: dict[str, Callable[[Run, int], Discrete]] = {
    "manufactured": manufactured, "lshape": l_shape, "lognormal": lognormal
}
ORDERS = {"manufactured": None, "lshape": 4 / 3}
"""Expected L2 order; None: degree + 1."""


def solve_level(run: Run, n: int) -> tuple[fem.Function, Discrete]:
    """Discretise with n cells per side and solve. Collective."""
    discrete = CASES[run["case"]](run, n)
    solution = fem.Function(discrete.space, name="u")
    with run.assembling():
        A, b = matrix(discrete.a), vector(discrete.L)
        extension = b.duplicate()
        extension.set(0.0)
        discrete.dirichlet.put(extension, 0.0)
        lifted = A.createVecLeft()
        A.mult(extension, lifted)
        b.axpy(-1.0, lifted)
        discrete.dirichlet.constrain(A)
        b.array[discrete.dirichlet.rows] = discrete.dirichlet.diagonal * discrete.dirichlet.values(0.0)
    system = run.system(A, discrete.space)
    system.solve(b, solution.x.petsc_vec)
    solution.x.scatter_forward()
    return solution, discrete


def solve(run: Run) -> None:
    """Solve on every level, print errors and orders, write the finest."""
    if run["mesh"] is not None and run["refine"] > 1:
        raise InvalidInput("-refine", run["refine"], "1 with -mesh", "Only the built-in meshes can be refined.")
    for name in ("dt", "t_end"):
        if name in run.given:
            run.say(f"poisson: -{name} has no meaning for a steady problem and is ignored")
    case, degree = run["case"], run["degree"]
    parameters: dict[str, Any] = {"case": case, "degree": degree}
    if case == "lognormal":
        parameters |= {"sigma": run["sigma"], "correlation": run["correlation"], "seed": run["seed"]}
    errors: list[float] = []
    for level in range(run["refine"]):
        n = run["n"] * 2**level
        solution, discrete = solve_level(run, n)
        if discrete.exact is not None:
            measure = ufl.dx(metadata={"quadrature_degree": 2 * degree + 4})
            difference = solution - discrete.exact
            errors.append(float(np.sqrt(integral(run.comm, difference**2 * measure))))
            order = f"  order {np.log2(errors[-2] / errors[-1]):.2f}" if level else ""
            cells = "" if run["mesh"] is not None else f"n {n:5d}  "
            run.say(f"{cells}unknowns {discrete.space.dofmap.index_map.size_global:8d}  "
                    f"L2 error {errors[-1]:.3e}{order}")
    domain = discrete.space.mesh
    parameters |= {"dim": domain.topology.dim,
                   **({"mesh": run["mesh"]} if run["mesh"] is not None else {"cells per side": n})}
    run.describe(f"Poisson's equation, {case}", **parameters)
    if errors:
        run.answer("L2 error", errors[-1])
    if len(errors) > 1:
        expected = ORDERS[case] or degree + 1
        run.answer("order of the L2 error", float(np.log2(errors[-2] / errors[-1])), expected=expected, tolerance=0.25,
                   source="interpolation theory (degree + 1; 2·2/3 with a 3π/2 corner)")
    for name, value, unit, target in discrete.answers(solution):
        run.answer(name, value, unit, expected=target)
    with run.writer([solution]) as writer:
        writer.write(0.0)
    run.draw(lambda path: draw(run, solution, path), f"Solution u, case {case}")


def draw(run: Run, solution: fem.Function, path: Any) -> None:
    """Draw the solution; of a 3-D body, what is left when the corner next to the eye is cut out. Collective."""
    title = f"Poisson, {run['case']}, degree {run['degree']}"
    if solution.function_space.mesh.topology.dim == 2:
        picture.plane(path, solution, title=title, label="u", unit="")
        return
    view = View(40.0, 28.0)
    eye = np.sign(view.axes()[2])
    points = solution.function_space.mesh.geometry.x
    low, high = np.empty(3), np.empty(3)
    run.comm.Allreduce(points.min(axis=0, initial=np.inf), low, MPI.MIN)
    run.comm.Allreduce(points.max(axis=0, initial=-np.inf), high, MPI.MAX)
    middle = (low + high) / 2
    picture.solid(path, solution, title=title, label="u", views=[("", view)], colours="viridis",
                  keep=lambda points: ((points - middle) * eye < 0).any(axis=1))


SCRIPT = Script("poisson", __doc__, OPTIONS, solve)
main = SCRIPT.main

if __name__ == "__main__":
    sys.exit(main())
