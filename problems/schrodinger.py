"""The Schrödinger equation H ψ = E ψ, H = −½∇² + V, in atomic units: lowest levels, or a wave packet in time.

    mpirun -n 2 python problems/schrodinger.py -case harmonic -states 6

Cases, all with exact levels:
  harmonic     V = ½ω²|x|²
  double_well  V = ½(ζ cosh 2x − 3)² along x, ½ω²y² across (Razavy 1980: the lowest three levels along x are known)
  hydrogen     V = −Z/r, in the plane or in space, on a mesh graded towards the nucleus

-mode eigen   the lowest -states by solves with H − σM, prefix `st_`: -method shift_invert is SLEPc's Krylov–Schur,
              inverse_iteration needs no SLEPc. σ (-shift) stays below the lowest level: tiles hold positive definite
              matrices.
-mode time    Crank–Nicolson, two real fields: a coherent state that comes back after a period, or a packet that
              tunnels from one well to the other.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import analogpde.fem  # noqa: F401 - first: it loads MPI, PETSc and DOLFINx in the order they need

# isort: split
import numpy as np
import ufl
from dolfinx import fem, mesh
from mpi4py import MPI
from petsc4py import PETSc

from analogpde.errors import InvalidInput
from analogpde.fem import eigen, picture, quantum
from analogpde.fem.forms import Dirichlet, integral, matrix, mean_diagonal
from analogpde.fem.quantum import Case
from analogpde.fem.render import View
from analogpde.fem.run import Run, Script
from analogpde.fem.system import LinearSystem, NotConverged
from analogpde.options import Option

OPTIONS = (
    Option("case", "choice", "harmonic", "The potential.", choices=("harmonic", "double_well", "hydrogen")),
    Option("mode", "choice", "eigen", "Levels, or a wave packet in time.", choices=("eigen", "time")),
    Option("method", "choice", "shift_invert", "Eigensolver: SLEPc's, or block inverse iteration.",
           choices=("shift_invert", "inverse_iteration")),
    Option("states", "int", None, "Number of lowest states (default: whole groups of equal levels).", low=1, high=200),
    Option("quadrant", "flag", False, "Only states even in every coordinate, on a quadrant (octant) of the box."),
    Option("n", "int", None, "Cells per side of the box or quadrant (default 64; 3-D 12; -mode time 24, 8).", low=1,
           high=100_000),
    Option("degree", "int", 3, "Polynomial degree of the Lagrange elements.", low=1, high=4),
    Option("refine", "int", 1, "Levels of refinement: n, 2n, 4n ...; prints the order.", low=1, high=8),
    Option("shift", "real", None, "Shift below the lowest level, in hartree (default 0; hydrogen 1.25 E0)."),
    Option("box", "real", None, "Half the side of the box in bohr (default: by the decay of the highest state).",
           low=0.0, open_low=True),
    Option("grade", "real", None, "Grading of the mesh towards the origin, 1: none (default 1; hydrogen by theory).",
           low=1.0, high=6.0),
    Option("omega", "real", 1.0, "Frequency of the oscillator.", low=1e-3, high=1e3),
    Option("zeta", "real", 0.25, "Double well: smaller is a higher barrier.", low=0.01, high=2.9),
    Option("charge", "real", 1.0, "Hydrogen: charge Z of the nucleus.", low=0.01, high=100.0),
    Option("dt", "real", None, "Time step of -mode time in atomic units (default: a 400th of -t_end's default).",
           low=0.0, open_low=True),
    Option("t_end", "real", None, "Simulated time of -mode time in atomic units (default: a period, a tunnelling).",
           low=0.0, open_low=True),
    Option("displacement", "real", 2.0, "Harmonic, -mode time: of the coherent state, in bohr.", low=0.0, high=100.0),
)

JUDGED = 1e-6
"""Relative error of every level that the report expects where mesh and degree allow it: degree 3, 2-D, n >= 64."""

ROUGH = 1e-3
"""Relative residual of a state above which it is told: SLEPc takes 1e-7."""

CONSERVED = 1e-4
"""Largest change of norm and energy that passes for what solves leave: 400 steps of default ones leave 4e-9."""

EIGEN_ONLY = ("method", "states", "refine", "shift")
TIME_ONLY = ("dt", "t_end", "displacement")


def create_mesh(run: Run, case: Case, n: int) -> mesh.Mesh:
    """Return the box, or the quadrant with -quadrant, graded towards the origin. Collective."""
    high = np.asarray(case.half_lengths)
    low = 0 * high if run["quadrant"] else -high
    make = mesh.create_rectangle if run["dim"] == 2 else mesh.create_box
    domain = make(run.comm, [low, high], [n] * run["dim"])
    grade = grading(run, run["degree"])
    if grade > 1:
        points = domain.geometry.x
        # Shells of the maximum norm keep their shape, so cells do too.
        radius = np.abs(points[:, : run["dim"]] / high).max(axis=1)
        points *= np.where(radius > 0, radius, 1.0)[:, None] ** (grade - 1)
    return domain


def grading(run: Run, degree: int) -> float:
    """Return g of |x| → |x|^g: above 2p/dim the cusp of a hydrogen state, ψ ~ 1 − Zr, costs no order of convergence."""
    if run["grade"] is not None:
        return float(run["grade"])
    return max(1.0, 1.1 * 2 * degree / run["dim"]) if run["case"] == "hydrogen" else 1.0



def cells_of(run: Run) -> int:
    """Return the cells per side on the coarsest level."""
    default = {("eigen", 2): 64, ("eigen", 3): 12, ("time", 2): 24, ("time", 3): 8}[run["mode"], run["dim"]]
    n = int(run["n"] or default)
    if run["case"] == "hydrogen" and not run["quadrant"] and n % 2:
        raise InvalidInput("-n", n, "an even number of cells per side, so that the nucleus is a vertex")
    return n


def outer_boundary(domain: mesh.Mesh, case: Case) -> Any:
    """Return the facets where ψ = 0: all but the planes of symmetry of a quadrant. Collective."""
    high = case.half_lengths

    def outside(x: Any) -> Any:
        return np.any([np.isclose(np.abs(x[i]), high[i]) for i in range(len(high))], axis=0)

    return mesh.locate_entities_boundary(domain, domain.topology.dim - 1, outside)


class Hamiltonian:
    """K − σM and M of one mesh; unknowns held at zero have a diagonal row in the one and none in the other.

    Args:
        run: the run.
        case: the potential.
        n: cells per side.
        shift: σ.
    """

    def __init__(self, run: Run, case: Case, n: int, shift: float) -> None:
        degree = run["degree"]
        domain = create_mesh(run, case, n)
        self.space = fem.functionspace(domain, ("Lagrange", degree))
        u, v = ufl.TrialFunction(self.space), ufl.TestFunction(self.space)
        with run.assembling():
            self.S = matrix(case.energy(u, v, degree) - fem.Constant(domain, shift) * u * v * ufl.dx)
            self.M = matrix(u * v * ufl.dx)
            wall = Dirichlet(self.space, outer_boundary(domain, case))
            wall.constrain(self.S)
            self.M.zeroRowsColumns(wall.global_rows, diag=0.0)
            self.M.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        self.free = np.ones(self.S.getLocalSize()[0], dtype=bool)
        self.free[wall.rows] = False
        self.points = self.space.tabulate_dof_coordinates()[: len(self.free)]

    def start(self, states: int) -> Any:
        """Return a first block of vectors: a few more than `states`, which makes inverse iteration faster. Collective.

        Raises:
            InvalidInput: the mesh has too few unknowns for it.
        """
        columns = states + max(2, states // 2)
        free = self.space.mesh.comm.allreduce(int(self.free.sum()), MPI.SUM)
        if free < 3 * columns:
            raise InvalidInput("-states", states, f"fewer: {columns} vectors are needed, and this mesh has {free} "
                               "unknowns inside", "Raise -n or -degree.")
        return eigen.start_block(self.points, self.free, columns)


def levels(run: Run, case: Case, n: int, shift: float) -> tuple[eigen.Eigenpairs, Hamiltonian, Any]:
    """Solve the eigenproblem with n cells per side; with -verify also with FP64 solves. Collective."""
    H = Hamiltonian(run, case, n, shift)
    count = len(case.levels)
    start = H.start(count)
    system = run.system(H.S, H.space, "st_")
    if run["method"] == "shift_invert":
        pairs = eigen.shift_invert(system, H.M, start, count, shift)
    else:
        pairs = eigen.inverse_iteration(system.solve, H.S, H.M, start, count, shift, say=run.say)
    check_programmed_once(run, system)
    reference = None
    if system.verifier is not None:
        direct = eigen.inverse_iteration(system.verifier.solve, H.S, H.M, start, count, shift, tolerance=1e-12)
        reference = direct.values + shift
    return pairs, H, reference


def check_programmed_once(run: Run, system: LinearSystem) -> None:
    """Put into the report how often the tiles were programmed: once, the matrix being constant."""
    if system.analog and system.ksp.getPC().getType() == "analog":
        times = system.ksp.getPC().getPythonContext().programmings
        run.answer(f"programmings of the matrix of {system.prefix or 'the time step'}", times, expected=1, tolerance=0)


def solve_levels(run: Run) -> None:
    """Find the lowest levels on every mesh, print them beside the exact ones, write the finest."""
    refuse(run, TIME_ONLY, "eigen")
    case = quantum.create(run, run["states"])
    shift = case.bound if run["shift"] is None else float(run["shift"])
    if shift >= case.levels[0]:
        raise InvalidInput("-shift", shift, f"below the lowest level, {case.levels[0]:g} hartree", "H - shift M must "
                           "be positive definite: tiles hold nothing else, and no level below would be found.")
    n, degree = cells_of(run), run["degree"]
    exact = np.asarray(case.levels)
    errors: list[Any] = []
    for level in range(run["refine"]):
        pairs, H, reference = levels(run, case, n * 2**level, shift)
        energies = pairs.values + shift
        errors.append(energies / exact - 1)
        run.say(f"n {n * 2**level}, {H.S.size[0]} unknowns, {pairs.steps} steps of {run['method']}, "
                f"{run.log.solves['st_'].count} solves so far")
        table(run, energies, exact, reference, np.log2(np.abs(errors[-2] / errors[-1])) if level else None)
    run.describe(f"Schrödinger equation, {case.title}", case=run["case"], mode="eigen", method=run["method"],
                 dim=run["dim"], degree=degree, **{"cells per side": n * 2**level, "quadrant": run["quadrant"],
                 "half sides (bohr)": [round(side, 6) for side in case.half_lengths], "shift (hartree)": shift,
                 "grading": grading(run, degree)}, **case.parameters)
    judged = run["dim"] == 2 and degree >= 3 and n * 2**level >= 64 and run["case"] != "hydrogen"
    for i, (energy, target) in enumerate(zip(energies, exact, strict=True)):
        run.answer(f"level {i}", float(energy), "hartree", expected=float(target), source=case.source,
                   tolerance=JUDGED * abs(float(target)) if judged else None)
    run.answer("largest relative error of a level", float(np.abs(errors[-1]).max()))
    rough = float(pairs.residuals.max())
    run.answer("largest relative residual of a state", rough)
    if rough > ROUGH:
        run.say(f"schrodinger: the states leave a relative residual of {rough:.1e}: they are that rough, the levels by "
                "about its square. Take a smaller -st_ksp_rtol or -eps_tol if you gave one.")
    if len(errors) > 1:
        run.answer("order of the lowest level's error", float(np.log2(abs(errors[-2][0] / errors[-1][0]))),
                   expected=2.0 * degree, tolerance=0.5, source="eigenvalues converge as h^(2 degree): Strang & Fix")
    if reference is not None:
        run.answer("largest relative difference from FP64 solves", float(np.abs(energies / reference - 1).max()))
    states = [fem.Function(H.space, name=f"state_{i}") for i in range(len(exact))]
    for i, state in enumerate(states):
        column = pairs.vectors[:, i]
        # The sign of an eigenvector is anybody's: let the state be positive where the first wave is.
        sign = run.comm.allreduce(float(column @ eigen.start_block(H.points, H.free, 1)[:, 0]), MPI.SUM)
        state.x.array[: len(column)] = column if sign >= 0 else -column
        state.x.scatter_forward()
    tails = [tail(case, state) / abs(energy) for state, energy in zip(states, energies, strict=True)]
    run.answer("relative fall of a level in a box 10 % wider", max(tails))
    if max(tails) > max(JUDGED, 0.01 * np.abs(errors[-1]).max()):  # else the mesh errs more
        worst = int(np.argmax(tails))
        run.say(f"The box cuts states off: by the slope of state {worst} at the walls, a box 10 % wider would lower "
                f"its level by about {tails[worst]:.1e} of it. Take a larger -box than {max(case.half_lengths):g}.")
    with run.writer(states) as writer:
        writer.write(0.0)
    run.draw(lambda path: draw(run, states, [f"{energy:.6f}" for energy in energies], case, path, "ψ"),
             f"Lowest states of the {case.title}, their energies in hartree")


def tail(case: Case, state: fem.Function) -> float:
    """Return what a level would fall by, in hartree, if the box were 10 % wider, to first order. Collective.

    Hadamard's formula: dE/d(ln side) = −½ ∮ (∂ψ/∂n)² x·n over the walls, ψ normalised.
    """
    domain = state.function_space.mesh
    facets = np.sort(outer_boundary(domain, case))
    walls = mesh.meshtags(domain, domain.topology.dim - 1, facets, np.ones_like(facets))
    n, x = ufl.FacetNormal(domain), ufl.SpatialCoordinate(domain)
    slope = ufl.inner(ufl.grad(state), n) ** 2 * ufl.inner(x, n) * ufl.ds(domain=domain, subdomain_data=walls)(1)
    return 0.1 * 0.5 * integral(domain.comm, slope) / integral(domain.comm, state**2 * ufl.dx)


def table(run: Run, energies: Any, exact: Any, reference: Any, orders: Any) -> None:
    """Print the levels beside the exact ones."""
    lines = ["  i  exact             computed          relative error"]
    if reference is not None:
        lines[0] += "  difference from FP64 solves"
    if orders is not None:
        lines[0] += "  order"
    for i, (energy, target) in enumerate(zip(energies, exact, strict=True)):
        line = f"{i:3d}  {target:<16.10g}  {energy:<16.10g}  {energy / target - 1:14.1e}"
        if reference is not None:
            line += f"  {energy / reference[i] - 1:27.1e}"
        if orders is not None:
            line += f"  {orders[i]:5.2f}"
        lines.append(line)
    run.say("\n".join(lines))


class CrankNicolson:
    """i ψ' = (H − E) ψ by the midpoint rule, (M + iτ(H − E)) ψ_half = M ψ, τ = dt/2, as two real fields in one block.

    Turned by 45°, the matrix is [P, Q; −Q, P] with P = M + τ(H − E), Q = M − τ(H − E): its symmetric part P is as large
    as its skew part whatever dt, where [M, −τH; τH, M] is all skew for fast waves. E is a constant that only turns the
    phase; near the mean energy it makes the phase error of the scheme small.

    Args:
        run: the run.
        case: the potential.
        n: cells per side.
        dt: time step.
    """

    def __init__(self, run: Run, case: Case, n: int, dt: float) -> None:
        degree = run["degree"]
        domain = create_mesh(run, case, n)
        self.comm, self.case, self.tau = run.comm, case, dt / 2
        self.space = fem.functionspace(domain, ("Lagrange", degree, (2,)))
        u, w = ufl.TrialFunction(self.space), ufl.TestFunction(self.space)

        def form(a: Any, b: Any, sign: float) -> Any:
            energy = case.energy(a, b, degree) - fem.Constant(domain, case.reference) * a * b * ufl.dx
            return a * b * ufl.dx + sign * self.tau * energy

        with run.assembling():
            self.A = matrix(form(u[0], w[0], 1) + form(u[1], w[0], -1) - form(u[0], w[1], -1) + form(u[1], w[1], 1))
            self.N = matrix(ufl.inner(u, w) * ufl.dx)
            facets = outer_boundary(domain, case)
            nodes = fem.locate_dofs_topological(self.space, domain.topology.dim - 1, facets)
            numbers = self.space.dofmap.index_map
            nodes = numbers.local_to_global(nodes[nodes < numbers.size_local])
            rows = np.stack([2 * nodes, 2 * nodes + 1], axis=1).ravel().astype(np.int32)
            self.A.zeroRowsColumns(rows, diag=mean_diagonal(self.A))
            self.N.zeroRowsColumns(rows, diag=0.0)
        self.system = run.system(self.A, self.space, symmetric=False)
        self.wave = fem.Function(self.space, name="wave")
        self.points = self.space.tabulate_dof_coordinates().T
        self.put(self.wave.x.array, 0.0)
        self._b, self._half = self.A.createVecLeft(), self.A.createVecRight()
        self._before = self.wave.x.petsc_vec.copy()

    def put(self, into: Any, time: float) -> None:
        """Write the exact wave function, in the gauge of E, into an array of this rank's unknowns with ghosts."""
        values = self.case.wave(self.points, time) * np.exp(1j * self.case.reference * time)
        into[0::2], into[1::2] = values.real, values.imag

    def advance(self) -> None:
        """Take one step. Collective."""
        z = self.wave.x.petsc_vec
        self.N.mult(z, self._b)
        real, imaginary = self._b.array[0::2].copy(), self._b.array[1::2].copy()
        self._b.array[0::2], self._b.array[1::2] = real + imaginary, imaginary - real  # times 1 − i
        self._half.waxpy(-1.0, self._before, z)  # the guess extrapolates
        self._half.aypx(0.5, z)
        z.copy(self._before)
        self.system.solve(self._b, self._half)
        z.axpby(2.0, -1.0, self._half)  # z ← 2 half − z
        self.wave.x.scatter_forward()

    def product(self, y: PETSc.Vec, z: PETSc.Vec) -> complex:
        """Return ⟨y|z⟩ by the mass matrix. Collective."""
        self.N.mult(z, self._b)
        u, v, a, b = y.array_r[0::2], y.array_r[1::2], self._b.array_r[0::2], self._b.array_r[1::2]
        parts = np.array([u @ a + v @ b, u @ b - v @ a])
        self.comm.Allreduce(MPI.IN_PLACE, parts)
        return complex(parts[0], parts[1])

    def energy(self) -> float:
        """Return ⟨ψ|H|ψ⟩/⟨ψ|ψ⟩ in hartree: zᵀ A z is zᵀ P z, the skew part cancels. Collective."""
        z = self.wave.x.petsc_vec
        norm = self.product(z, z).real
        self.A.mult(z, self._b)
        return (z.dot(self._b) / norm - 1.0) / self.tau + self.case.reference


def solve_time(run: Run) -> None:
    """Run a wave packet and compare it with the exact one."""
    refuse(run, EIGEN_ONLY, "time")
    case = quantum.packet(run)
    n = cells_of(run)
    t_end = run["t_end"] or case.time
    steps = run.count_steps(t_end, run["dt"] or case.time / 400, "atomic units")
    dt = t_end / steps
    if dt / 2 * (case.reference - case.levels[0]) >= 0.9:
        raise InvalidInput("-dt", dt, f"below {1.8 / (case.reference - case.levels[0]):.3g}: else M + dt/2 (H - E) is "
                           "not positive definite, and the packet is not resolved")
    run.describe(f"Schrödinger equation in time, {case.title}", case=run["case"], mode="time", dim=run["dim"],
                 degree=run["degree"], steps=steps, **{"cells per side": n, "dt": dt, "t_end": t_end,
                 "half sides (bohr)": [round(side, 6) for side in case.half_lengths]}, **case.parameters)
    scheme = CrankNicolson(run, case, n, dt)
    z = scheme.wave.x.petsc_vec
    first = z.copy()
    norm, energy = scheme.product(z, z).real, scheme.energy()
    scalar, places = scheme.space.sub(0).collapse()
    places = np.asarray(places)
    density, real, imaginary = (fem.Function(scalar, name=name) for name in ("density", "real", "imaginary"))

    def fields() -> None:
        real.x.array[:] = scheme.wave.x.array[places]
        imaginary.x.array[:] = scheme.wave.x.array[places + 1]
        density.x.array[:] = real.x.array**2 + imaginary.x.array**2

    shots, quarters = run.snapshot_steps(steps), {round(steps * i / 4): i for i in range(5)}
    shown: list[tuple[fem.Function, str]] = []

    def show(step: int) -> None:
        fields()
        if step in quarters:
            shown.append((density.copy(), f"t = {step * dt:.3g}"))

    with run.writer([density, real, imaginary]) as writer, run.progress(steps, run["case"]) as progress:
        show(0)
        writer.write(0.0)
        for step in range(1, steps + 1):
            scheme.advance()
            if step in shots or step in quarters:
                show(step)
            if step in shots:
                writer.write(step * dt)
            progress.step(f"t {step * dt:.3g}")
    check_programmed_once(run, scheme.system)
    if not run.log.solves[scheme.system.prefix].iterations_total:
        raise NotConverged("no solve took an iteration: each accepted its guess, and the packet has not moved. Take a "
                           "smaller -ksp_rtol.")
    exact = fem.Function(scheme.space)
    scheme.put(exact.x.array, t_end)
    overlap = abs(scheme.product(first, z)) / norm
    expected = abs(scheme.product(first, exact.x.petsc_vec)) / norm
    exact.x.petsc_vec.axpy(-1.0, z)
    error = math.sqrt(scheme.product(exact.x.petsc_vec, exact.x.petsc_vec).real / norm)
    run.answer("relative L2 error of the wave function", error)
    for name, value in (("norm", scheme.product(z, z).real / norm), ("energy", scheme.energy() / energy)):
        run.answer(f"relative change of the {name}", value - 1, expected=0.0, tolerance=CONSERVED,
                   source="Crank-Nicolson, solved exactly")
    run.answer("overlap with the first state", overlap, expected=expected, source=case.source)
    run.draw(lambda path: draw(run, [function for function, _ in shown], [text for _, text in shown], case, path,
                               "|ψ|²"), f"Probability density, {case.title}")


def draw(run: Run, functions: list[fem.Function], captions: list[str], case: Case, path: Path, label: str) -> None:
    """Draw up to six functions; of a box, what is left when the corner next to the eye is cut out. Collective."""
    view = View(40.0, 28.0)
    eye = np.sign(view.axes()[2])
    seen = case.seen

    def keep(points: Any) -> Any:
        inside = (np.abs(points) < np.asarray(seen)).all(axis=1) if len(points) else np.zeros(0, dtype=bool)
        return inside if run["quadrant"] else inside & ((points * eye < 0).any(axis=1))

    panels = list(zip(functions, captions, strict=True))[:6]
    picture.panels(path, panels, title=f"{case.title}, degree {run["degree"]}", label=label, seen=seen,
                   view=View(220.0, -28.0) if run["quadrant"] else view, keep=keep if run["dim"] == 3 else None,
                   symmetric=label == "ψ")


def refuse(run: Run, names: tuple[str, ...], mode: str) -> None:
    """Say which given options have no meaning in this mode."""
    for name in names:
        if name in run.given:
            run.say(f"schrodinger: -{name} has no meaning with -mode {mode} and is ignored")


def solve(run: Run) -> None:
    """Find levels or run a packet."""
    (solve_levels if run["mode"] == "eigen" else solve_time)(run)


SCRIPT = Script("schrodinger", __doc__, OPTIONS, solve, prefixes=("st_",),
                refused={"mesh": "the exact levels belong to the whole space, the box is ours"})
main = SCRIPT.main

if __name__ == "__main__":
    sys.exit(main())
