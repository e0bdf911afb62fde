"""The cases of bench_scaling.py and their matrices: from one rank's rows of a stencil to unstructured finite elements.

Every matrix has its prescribed (Dirichlet) unknowns eliminated and is the same to the last bit on any number of ranks:
stencils are written row by row, meshes are numbered on every rank alike and each rank keeps its own rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

MESH = Path(__file__).resolve().parent.parent / "meshes" / "heat_sink.xdmf"
CHUNK = 1 << 18  # rows of a stencil that are made at a time: the peak of memory is to be the solver's
ROTATING = math.sqrt(0.5)  # largest speed of the flow (½ − y, x − ½) on the unit square: in the corners

Weight = float | Callable[..., NDArray[np.float64]]


@dataclass(frozen=True)
class System:
    """A matrix, by its rows.

    Args:
        size: unknowns.
        rows: returns rows begin … end − 1 as CSR with all columns.
        symmetric: whether it is symmetric positive definite, else only positive.
        block: unknowns a node.
        nodes: coordinates (size/block, 3) of the nodes, where rigid-body modes are to be attached.
    """

    size: int
    rows: Callable[[int, int], sp.csr_matrix]
    symmetric: bool = True
    block: int = 1
    nodes: NDArray[np.float64] | None = None


def side(unknowns: int, dim: int) -> int:
    """Return how many unknowns a grid has along a side, of about so many in all."""
    return max(2, round(unknowns ** (1 / dim)))


# ---- stencils ----------------------------------------------------------------------------------------------


def stencil(shape: tuple[int, ...], weights: Mapping[tuple[int, ...], Weight], symmetric: bool = True) -> System:
    """Return the matrix of a stencil on a grid with eliminated border.

    Args:
        shape: grid points per direction, the last counted fastest.
        weights: by offset, numbers or functions of the index arrays (i, j, …) of the rows' points.
        symmetric: whether the matrix is.
    """
    size = math.prod(shape)
    offsets = sorted(weights)  # in the order of the columns

    def chunk(begin: int, end: int) -> sp.csr_matrix:
        here = np.arange(begin, end, dtype=np.int32)
        points = np.unravel_index(here, shape)
        columns = np.empty((len(here), len(offsets)), np.int32)
        values = np.empty(columns.shape)
        inside = np.ones(columns.shape, bool)
        for k, offset in enumerate(offsets):
            weight = weights[offset]
            for point, step, length in zip(points, offset, shape, strict=True):
                inside[:, k] &= (point + step >= 0) & (point + step < length)
            columns[:, k] = here + sum(int(s) * math.prod(shape[d + 1 :]) for d, s in enumerate(offset))
            values[:, k] = weight(*points) if callable(weight) else weight
        indptr = np.concatenate(([0], np.cumsum(inside.sum(axis=1)))).astype(np.int32)
        return sp.csr_matrix((values[inside], columns[inside], indptr), shape=(len(here), size))

    def rows(begin: int, end: int) -> sp.csr_matrix:
        parts = [chunk(first, min(first + CHUNK, end)) for first in range(begin, end, CHUNK)]
        return sp.csr_matrix(sp.vstack(parts)) if parts else sp.csr_matrix((0, size))

    return System(size, rows, symmetric)


def poisson(unknowns: int, factors: tuple[float, ...] = (1.0, 1.0)) -> System:
    """−Σ f_d ∂²u/∂x_d²: 5 points in 2-D; 7 in 3-D, which are linear elements on Kuhn's tetrahedra too."""
    dim = len(factors)
    unit = np.eye(dim, dtype=int)
    weights: dict[tuple[int, ...], Weight] = {(0,) * dim: 2 * sum(factors)}
    for d, factor in enumerate(factors):
        weights[tuple(unit[d])] = weights[tuple(-unit[d])] = -factor
    return stencil((side(unknowns, dim),) * dim, weights)


def nine_points(n: int, weights: NDArray[np.float64]) -> System:
    """Return the matrix of a constant 3 × 3 stencil."""
    return stencil((n, n), {(i - 1, j - 1): float(w) for (i, j), w in np.ndenumerate(weights) if w})


def rotated(unknowns: int, ratio: float = 1e-3, degrees: float = 30.0) -> System:
    """−∇·K∇u, K with eigenvalues 1 and `ratio`, the strong axis turned; bilinear elements."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    k = np.array([[c, -s], [s, c]]) @ np.diag([1.0, ratio]) @ np.array([[c, s], [-s, c]])
    stiff, mass, slope = np.array([-1.0, 2, -1]), np.array([1.0, 4, 1]) / 6, np.array([-0.5, 0, 0.5])
    along_x, along_y = np.outer(mass, stiff), np.outer(stiff, mass)  # rows of the grid are y
    return nine_points(side(unknowns, 2), k[0, 0] * along_x + k[1, 1] * along_y - 2 * k[0, 1] * np.outer(slope, slope))


def reaction(unknowns: int, c: float | None) -> System:
    """M + c S with linear triangles on the unit square; None: c = h, a time step as long as a cell."""
    n = side(unknowns, 2)
    h = 1 / (n + 1)
    mass = h * h / 12 * np.array([[1.0, 1, 0], [1, 6, 1], [0, 1, 1]])
    return nine_points(n, mass + (h if c is None else c) * np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]))


def diffusion(n: int, k: NDArray[np.float64]) -> System:
    """−∇·k∇u, five points, harmonic means of k (shape n + 2, n + 2)."""

    def face(a: int, b: int, i: NDArray, j: NDArray) -> NDArray[np.float64]:
        return -2 / (1 / k[i + 1, j + 1] + 1 / k[i + 1 + a, j + 1 + b])

    faces: dict[tuple[int, ...], Weight] = {o: partial(face, *o) for o in ((0, 1), (0, -1), (1, 0), (-1, 0))}
    faces[0, 0] = lambda i, j: -face(0, 1, i, j) - face(0, -1, i, j) - face(1, 0, i, j) - face(-1, 0, i, j)
    return stencil((n, n), faces)


def gaussian_field(n: int, correlation: float = 0.05, modes: int = 256, seed: int = 1) -> NDArray[np.float64]:
    """Return a smooth Gaussian field of variance 1 on an n × n grid of the unit square, the same for every n."""
    rng = np.random.default_rng(seed)
    waves, phases = rng.standard_normal((2, modes)) / correlation, rng.uniform(0, 2 * np.pi, modes)
    x = np.linspace(0, 1, n)
    left, right = np.exp(1j * (np.outer(x, waves[0]) + phases)), np.exp(1j * np.outer(x, waves[1]))
    return np.asarray((left @ right.T).real * math.sqrt(2 / modes))


def lognormal(unknowns: int, sigma: float, correlated: bool = True) -> System:
    """Diffusion with k = exp(σ g), g of correlation length 5 % of the domain, or of independent nodes."""
    n = side(unknowns, 2)
    g = gaussian_field(n + 2) if correlated else np.random.default_rng(1).standard_normal((n + 2, n + 2))
    return diffusion(n, np.exp(sigma * g))


def checkerboard(unknowns: int, contrast: float = 1e6, cells: int = 8) -> System:
    """Diffusion with k = 1 and `contrast` in turn, on squares of so many cells a side."""
    n = side(unknowns, 2)
    number = np.arange(n + 2) // cells
    return diffusion(n, np.where(np.add.outer(number, number) % 2 == 0, 1.0, contrast))


def upwind(unknowns: int, peclet: float) -> System:
    """Convection in a rotating flow and diffusion, five points, upwind; `peclet` is the largest |v| h/(2 ε)."""
    n = side(unknowns, 2)
    speed = 2 * peclet / ROTATING  # in units of ε/h

    def v(i: NDArray) -> NDArray[np.float64]:
        return speed * ((i + 1) / (n + 1) - 0.5)

    # (−v(i), v(j)) along (j, i)
    return stencil((n, n), {
        (0, 0): lambda i, j: 4 + np.abs(v(i)) + np.abs(v(j)),
        (0, -1): lambda i, j: -1 - np.maximum(-v(i), 0), (0, 1): lambda i, j: -1 - np.maximum(v(i), 0),
        (-1, 0): lambda i, j: -1 - np.maximum(v(j), 0), (1, 0): lambda i, j: -1 - np.maximum(-v(j), 0)}, False)


# ---- meshes ------------------------------------------------------------------------------------------------


def whole(matrix: sp.csr_matrix, keep: NDArray[Any] | None = None, **more: Any) -> System:
    """Return a matrix that every rank holds, without the rows and columns that are not in `keep`."""
    matrix = matrix if keep is None else matrix[keep][:, keep]
    matrix.sort_indices()
    return System(matrix.shape[0], lambda begin, end: matrix[begin:end], **more)


def delaunay(unknowns: int, seed: int = 0) -> System:
    """Poisson with linear triangles on the Delaunay mesh of random points in the unit square."""
    from scipy.spatial import Delaunay

    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, side(unknowns, 2) + 1)
    border = np.concatenate([np.stack(p, 1) for p in ((t, 0 * t), (t, 0 * t + 1), (0 * t, t), (0 * t + 1, t))])
    points = np.concatenate((rng.uniform(size=(unknowns, 2)), np.unique(border, axis=0)))
    triangles = Delaunay(points).simplices
    corner = points[triangles]
    edge = np.roll(corner, 1, axis=1) - np.roll(corner, -1, axis=1)  # opposite each corner
    double_area = np.abs(edge[:, 0, 0] * edge[:, 1, 1] - edge[:, 0, 1] * edge[:, 1, 0])
    keep = double_area > 1e-14  # the hull may have flat triangles
    local = np.einsum("eid,ejd->eij", edge[keep], edge[keep]) / (2 * double_area[keep, None, None])
    row, column = np.repeat(triangles[keep], 3, axis=1).ravel(), np.tile(triangles[keep], 3).ravel()
    matrix = sp.csr_matrix((local.ravel(), (row, column)), shape=(len(points),) * 2)[:unknowns, :unknowns]
    # random numbers would leave no row near its neighbours; a mesh generator does not do that
    return whole(matrix, sp.csgraph.reverse_cuthill_mckee(matrix, symmetric_mode=True))


def elements(form: Any, space: Any = None, where: Callable[[NDArray], NDArray] | None = None, **more: Any) -> System:
    """Return the matrix of a form on a mesh of this rank alone.

    Args:
        form: UFL.
        space: its space, if there are prescribed values.
        where: marks the part of the boundary, by coordinates, on which they are.
        more: of `System`.
    """
    from dolfinx import fem, mesh

    from analogpde.fem import forms

    assembled = forms.matrix(form)
    indptr, indices, values = assembled.getValuesCSR()
    matrix = sp.csr_matrix((values, indices, indptr), shape=assembled.getSize())
    assembled.destroy()
    if where is None:
        return whole(matrix, **more)
    domain, block = space.mesh, space.dofmap.index_map_bs
    facets = mesh.locate_entities_boundary(domain, domain.topology.dim - 1, where)
    fixed = fem.locate_dofs_topological(space, domain.topology.dim - 1, facets)
    free = np.setdiff1d(np.arange(matrix.shape[0] // block), fixed)
    if block > 1:
        more = {"block": block, "nodes": space.tabulate_dof_coordinates()[free], **more}
    return whole(matrix, (free[:, None] * block + np.arange(block)).ravel(), **more)


def space_on(domain: Any, degree: int = 1, *, values: tuple[int, ...] = ()) -> tuple[Any, Any, Any, Any]:
    """Return a Lagrange space, its trial and test function and the coordinates."""
    import ufl
    from dolfinx import fem

    space = fem.functionspace(domain, ("Lagrange", degree, values))
    return space, ufl.TrialFunction(space), ufl.TestFunction(space), ufl.SpatialCoordinate(domain)


def unit_domain(dim: int, n: int) -> Any:
    """Return n cells a side of the unit square or cube, on this rank alone."""
    from dolfinx import mesh
    from mpi4py import MPI

    return mesh.create_unit_square(MPI.COMM_SELF, n, n) if dim == 2 else mesh.create_unit_cube(MPI.COMM_SELF, n, n, n)


def everywhere(x: NDArray) -> NDArray:
    """Mark the whole boundary."""
    return np.ones(x.shape[1], bool)


def lagrange(unknowns: int, dim: int, degree: int) -> System:
    """Poisson with elements of a higher degree."""
    from ufl import dx, grad, inner

    space, u, v, _ = space_on(unit_domain(dim, max(2, round((side(unknowns, dim) + 1) / degree))), degree)
    return elements(inner(grad(u), grad(v)) * dx, space, everywhere)


def elasticity(unknowns: int, nu: float = 0.3) -> System:
    """A cube of linear tetrahedra, clamped at x = 0, with its rigid-body modes."""
    from ufl import Identity, dx, grad, inner, sym, tr

    space, u, v, _ = space_on(unit_domain(3, side(unknowns // 3, 3)), values=(3,))
    stress = sym(grad(u)) / (1 + nu) + nu / ((1 + nu) * (1 - 2 * nu)) * tr(sym(grad(u))) * Identity(3)
    return elements(inner(stress, sym(grad(v))) * dx, space, lambda x: x[0] < 1e-9)


def supg(unknowns: int, peclet: float) -> System:
    """Convection in a rotating flow and diffusion, linear triangles with streamline diffusion (SUPG)."""
    from ufl import as_vector, dot, dx, grad, inner, min_value, sqrt

    n = side(unknowns, 2) + 1
    h, eps = 1 / n, ROTATING / (2 * peclet * n)
    space, u, v, x = space_on(unit_domain(2, n))
    flow = as_vector((0.5 - x[1], x[0] - 0.5))
    tau = min_value(h / (2 * sqrt(inner(flow, flow) + 1e-20)), h * h / (12 * eps))
    form = eps * inner(grad(u), grad(v)) + dot(flow, grad(u)) * (v + tau * dot(flow, grad(v)))
    return elements(form * dx, space, everywhere, symmetric=False)


def heat_sink(unknowns: int) -> System:
    """Steady conduction in the Gmsh-made heat sink, air at its fins; the mesh refined towards so many unknowns."""
    from dolfinx import mesh
    from mpi4py import MPI
    from ufl import conditional, ds, dx, grad, gt, inner

    from analogpde.fem import named_mesh

    domain = named_mesh.read(MPI.COMM_SELF, MESH).mesh
    while 4 * domain.topology.index_map(0).size_local < unknowns:  # a refinement makes about seven times as many
        domain.topology.create_entities(1)
        domain = mesh.refine(domain)[0]
    _, u, v, (_, _, z) = space_on(domain)
    # W/(m K): aluminium above z = 0, a pad of 0.5 mm below it, silicon; film of 50 W/(m² K). One point a cell decides.
    k = conditional(gt(z, 0.0), 200.0, conditional(gt(z, -0.5e-3), 3.0, 148.0))
    film = conditional(gt(z, 1e-6), 50.0, 0.0)
    return elements(k * inner(grad(u), grad(v)) * dx(metadata={"quadrature_degree": 0})
                    + film * u * v * ds(metadata={"quadrature_degree": 2}))


PROBLEMS: dict[str, tuple[str, Callable[[int], System]]] = {
    "poisson2": ("Poisson, 2-D", poisson),
    "poisson3": ("Poisson, 3-D", partial(poisson, factors=(1.0, 1.0, 1.0))),
    "rough3": ("lognormal, σ = 3, independent nodes", partial(lognormal, sigma=3.0, correlated=False)),
    "lognormal1": ("lognormal, σ = 1", partial(lognormal, sigma=1.0)),
    "lognormal2": ("lognormal, σ = 2", partial(lognormal, sigma=2.0)),
    "lognormal3": ("lognormal, σ = 3", partial(lognormal, sigma=3.0)),
    "checkerboard": ("checkerboard 1 : 10⁶", checkerboard),
    "aligned": ("anisotropy 1 : 1000 along the grid", partial(poisson, factors=(1.0, 1e-3))),
    "rotated": ("anisotropy 1 : 1000 at 30°", rotated),
    "delaunay": ("Delaunay mesh of random points", delaunay),
    "heat_sink": ("heat sink, Gmsh's mesh", heat_sink),
    "p2": ("P2 Poisson, 2-D", partial(lagrange, dim=2, degree=2)),
    "p3": ("P3 Poisson, 2-D", partial(lagrange, dim=2, degree=3)),
    "p2in3": ("P2 Poisson, 3-D", partial(lagrange, dim=3, degree=2)),
    "elasticity": ("elasticity, 3-D, ν = 0.3", elasticity),
    "wind0.1": ("convection–diffusion, upwind, Péclet 0.1", partial(upwind, peclet=0.1)),
    "wind1": ("convection–diffusion, upwind, Péclet 1", partial(upwind, peclet=1.0)),
    "wind10": ("convection–diffusion, upwind, Péclet 10", partial(upwind, peclet=10.0)),
    "supg0.1": ("convection–diffusion, SUPG, Péclet 0.1", partial(supg, peclet=0.1)),
    "supg1": ("convection–diffusion, SUPG, Péclet 1", partial(supg, peclet=1.0)),
    "supg10": ("convection–diffusion, SUPG, Péclet 10", partial(supg, peclet=10.0)),
    "heat": ("heat, M + h S", partial(reaction, c=None)),
    "helmholtz": ("Helmholtz, M + 0.01 S", partial(reaction, c=0.01)),
}
"""Words and maker (from about how many unknowns) of each problem."""


Result = dict[str, Any]
TOPICS = {
    "poisson2": "Poisson, 2-D",
    "poisson3": "Poisson, 3-D",
    "coefficient": "Discontinuous and lognormal coefficients",
    "mesh": "Anisotropy and unstructured meshes",
    "element": "Higher degree, elasticity",
    "wind": "Convection and diffusion",
    "reaction": "Heat and Helmholtz",
    "plain": "Plain refinement, no accelerator",
    "ranks": "Ranks",
    "shoot": "All tiles once, against batched float32 GEMV",
}


@dataclass(frozen=True)
class Case:
    """One case.

    Args:
        topic: its table on the page.
        problem: of bench_cases.PROBLEMS.
        unknowns: about how many.
        target: most outer iterations to 1e-8; in the topic `shoot` the smallest fraction of the GEMV's rate.
        chip, tile: preset and its tile size; 0: the preset's.
        accelerator: of KSP analog.
        ranks: MPI processes.
    """

    topic: str
    problem: str
    unknowns: int
    target: float
    chip: str = "rram128"
    tile: int = 0
    accelerator: str = "auto"
    ranks: int = 1

    @property
    def key(self) -> str:
        """Its name in the data file."""
        name = "shoot/" if self.topic == "shoot" else ""
        return f"{name}{self.problem}/{self.unknowns}/{self.chips}/{self.accelerator}/{self.ranks}"

    @property
    def chips(self) -> str:
        """Chip and tile size in a word."""
        return self.chip + (f"-{self.tile}" if self.tile else "")


SMALL = (10_000, 100_000)
MILLION, MOST = (*SMALL, 1_000_000), (*SMALL, 1_000_000, 4_000_000)
PKU64: Result = {"chip": "pku2025", "tile": 64}
# topic, problems, sizes (each kind begins at 1e4 unknowns), target, what else a case says
GROUPS: list[tuple[str, str, tuple[int, ...], float, Result]] = [
    ("poisson2", "poisson2", MOST, 13, {}),
    ("poisson2", "poisson2", MOST, 14, PKU64),
    *(("poisson2", "poisson2", MOST, 20, {"chip": "pku2025", "tile": tile}) for tile in (16, 128)),
    *(("poisson3", "poisson3", MILLION, 13, {"tile": tile}) for tile in (128, 256, 512)),
    ("poisson3", "poisson3", MILLION, 14, {"chip": "pku2025"}),
    ("coefficient", "lognormal1", MILLION, 18, {}),
    ("coefficient", "lognormal2", MILLION, 25, {}),
    ("coefficient", "lognormal3 rough3", MILLION, 40, {}),
    ("coefficient", "checkerboard", MILLION, 30, {}),
    ("mesh", "aligned rotated delaunay heat_sink", SMALL, 25, {}),
    ("element", "p2 p3", SMALL, 25, {}),
    ("element", "p2in3", (10_000, 50_000), 25, {}),
    ("element", "elasticity", (10_000, 30_000), 40, {}),
    ("wind", "wind0.1 wind1 wind10 supg0.1 supg1 supg10", SMALL, 30, {}),
    ("reaction", "heat helmholtz", SMALL, 10, {}),
    ("plain", "poisson2 poisson3", SMALL, 20, {"accelerator": "none"}),
    ("plain", "poisson2 poisson3", SMALL, 30, {"accelerator": "none", **PKU64}),
    ("ranks", "poisson2", MILLION, 13, {"ranks": 2}),
    *(("ranks", "poisson2", SMALL, 13, {"ranks": ranks}) for ranks in (4, 8)),
    *(("shoot", "poisson2", SMALL, 0.6, {"chip": chip}) for chip in ("ideal", "rram128")),
]
CASES = [Case(topic, problem, n, target, **more) for topic, problems, sizes, target, more in GROUPS
         for problem in problems.split() for n in sizes]
