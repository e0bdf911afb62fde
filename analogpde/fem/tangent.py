"""Fast assembly of the shallow-water equations' right-hand sides on a curved surface.

The mesh does not move, so all that a general assembler computes in every cell at every time is constant: here the
gradients of the basis functions are kept, two components in a tangent frame, and one pass over the cells makes all
vectors of a time step.
"""

from __future__ import annotations

from dataclasses import dataclass

import basix
import numpy as np
from dolfinx import fem
from numpy.typing import NDArray

from analogpde.compiled import compiled


@dataclass(frozen=True)
class Cells:
    """Basis functions at the quadrature points of the cells that this rank owns.

    Args:
        dofs: local numbers of unknowns (cells, functions).
        basis: values (points, functions).
        gradient: (cells, points, 2, functions), 1/m, in a frame (t₁, t₂) with t₁ × t₂ outward.
        weight: quadrature weight times area element (cells, points), m².
        height: smallest height of the triangle of each cell's corners (cells,), m.
    """

    dofs: NDArray
    basis: NDArray
    gradient: NDArray
    weight: NDArray
    height: NDArray


def tabulate(space: fem.FunctionSpace, quadrature_degree: int) -> Cells:
    """Return the basis functions of a scalar Lagrange space on a surface of triangles.

    Args:
        space: its mesh has cells oriented consistently, normals outward.
        quadrature_degree: polynomials exact on flat cells.
    """
    mesh = space.mesh
    owned = mesh.topology.index_map(2).size_local
    points, weights = (np.asarray(part, dtype=float) for part in basix.make_quadrature(
        basix.CellType.triangle, quadrature_degree))
    element = space.element.basix_element
    functions = np.asarray(element.tabulate(1, points), dtype=float)[..., 0]
    nodes = basix.create_element(basix.ElementFamily.P, basix.CellType.triangle, mesh.geometry.cmaps[0].degree,
                                 basix.LagrangeVariant.equispaced)
    shape = np.asarray(nodes.tabulate(1, points), dtype=float)[1:, :, :, 0]
    corners = mesh.geometry.x[mesh.geometry.dofmaps[0][:owned]]
    jacobian = np.einsum("dqf,cfx->cqxd", shape, corners)
    first, second = jacobian[..., 0], jacobian[..., 1]
    normal = np.cross(first, second)
    area = np.linalg.norm(normal, axis=-1)
    t1 = first / np.linalg.norm(first, axis=-1)[..., None]
    t2 = np.cross(normal / area[..., None], t1)
    frame = np.stack([t1, t2], axis=-2)  # (c, q, 2, x)
    local = np.linalg.inv(np.einsum("cqtx,cqxd->cqtd", frame, jacobian))  # reference derivatives to tangent ones
    gradient = np.ascontiguousarray(np.einsum("cqdt,dqf->cqtf", local, functions[1:]))
    a, b, c = (corners[:, i] for i in range(3))
    edges = np.stack([np.linalg.norm(p - q, axis=1) for p, q in ((a, b), (b, c), (c, a))])
    height = np.linalg.norm(np.cross(b - a, c - a), axis=1) / edges.max(axis=0, initial=0.0)
    return Cells(np.ascontiguousarray(space.dofmap.list[:owned]), np.ascontiguousarray(functions[0]), gradient,
                 area * weights, height)


@compiled
def inside(nodes: NDArray, eta: NDArray, h: NDArray, bounds: NDArray) -> float:
    """Return 1 where η/h is off its bounds at no node of a cell by more than bounds[2], 0 where by twice that.

    Args:
        nodes: of the cell.
        eta, h: nodal values.
        bounds: the two bounds, and a distance.
    """
    least = 1.0
    for d in nodes:
        ratio = eta[d] / h[d]
        least = min(least, 2.0 - max(ratio - bounds[1], bounds[0] - ratio) / bounds[2])
    return max(least, 0.0)


@compiled
def tendencies(dofs: NDArray, basis: NDArray, gradient: NDArray, weight: NDArray, height: NDArray, psi: NDArray,
               chi: NDArray, eta: NDArray, smooth: NDArray, h: NDArray, reference: float, upwind: float,
               full: float, fastest: float, bounds: NDArray, out: NDArray) -> None:
    """Add up ∫ (η*u − F)·∇w, ∫ η*(n×u)·∇w, ∫ (h − H)u·∇w and ∫ ½|u|²w.

    Here u = n×∇ψ + ∇χ and η* = η − √τ (√τ u·∇η − σq), σ being 1 in cells where η/h is within its bounds and 0 in those
    outside (`inside`); and F = (1 − σ) κ e (e·h∇(η/h)), e = n×u/|u| and κ the smaller of full·|u|·height and
    fastest·height².

    Args:
        dofs, basis, gradient, weight, height: of `Cells`.
        psi, chi, eta, smooth, h: nodal values, ghosts included: streamfunction, potential, absolute vorticity, q,
            depth.
        reference: H in m.
        upwind: τ |u|/height.
        full, fastest: of diffusion across the flow; 1 and 1/s.
        bounds: of η/h, and how far beyond them σ is still 1.
        out: (4, unknowns), changed in place; entries of ghosts are to be sent to their owners.
    """
    n = dofs.shape[1]
    local = np.zeros((4, n))
    for c in range(dofs.shape[0]):
        local[:] = 0.0
        keep = inside(dofs[c], eta, h, bounds)
        for q in range(basis.shape[0]):
            psi_x = psi_y = chi_x = chi_y = eta_x = eta_y = h_x = h_y = value = mean = depth = 0.0
            for i in range(n):
                d = dofs[c, i]
                gx, gy = gradient[c, q, 0, i], gradient[c, q, 1, i]
                psi_x += gx * psi[d]
                psi_y += gy * psi[d]
                chi_x += gx * chi[d]
                chi_y += gy * chi[d]
                eta_x += gx * eta[d]
                eta_y += gy * eta[d]
                h_x += gx * h[d]
                h_y += gy * h[d]
                value += basis[q, i] * eta[d]
                mean += basis[q, i] * smooth[d]
                depth += basis[q, i] * h[d]
            u, v = chi_x - psi_y, chi_y + psi_x
            w = weight[c, q]
            square = u * u + v * v
            root = np.sqrt(upwind * height[c] / np.sqrt(square)) if square > 0.0 else 0.0
            ratio = value / depth
            advected = w * (value - root * (root * (u * eta_x + v * eta_y) - keep * mean))
            spread = 0.0
            if keep < 1.0 and square > 0.0:
                kappa = min(full * height[c] / np.sqrt(square), fastest * height[c] * height[c] / square)
                spread = w * (1.0 - keep) * kappa * (u * (eta_y - ratio * h_y) - v * (eta_x - ratio * h_x))
            flux = w * (depth - reference)
            kinetic = 0.5 * w * square
            for i in range(n):
                along = u * gradient[c, q, 0, i] + v * gradient[c, q, 1, i]
                across = -v * gradient[c, q, 0, i] + u * gradient[c, q, 1, i]
                local[0, i] += advected * along - spread * across
                local[1, i] += advected * across
                local[2, i] += flux * along
                local[3, i] += kinetic * basis[q, i]
        for i in range(n):
            for k in range(4):
                out[k, dofs[c, i]] += local[k, i]


@compiled
def advection(dofs: NDArray, basis: NDArray, gradient: NDArray, weight: NDArray, height: NDArray, psi: NDArray,
              chi: NDArray, eta: NDArray, h: NDArray, upwind: float, bounds: NDArray, out: NDArray) -> None:
    """Add up ∫ σ√τ u·∇η w with u = n×∇ψ + ∇χ and σ as in `tendencies`.

    Args:
        dofs, basis, gradient, weight, height, psi, chi, eta, h, upwind, bounds: as `tendencies` has them.
        out: (unknowns,), changed in place; entries of ghosts are to be sent to their owners.
    """
    n = dofs.shape[1]
    for c in range(dofs.shape[0]):
        keep = inside(dofs[c], eta, h, bounds)
        for q in range(basis.shape[0]):
            psi_x = psi_y = chi_x = chi_y = eta_x = eta_y = 0.0
            for i in range(n):
                d = dofs[c, i]
                gx, gy = gradient[c, q, 0, i], gradient[c, q, 1, i]
                psi_x += gx * psi[d]
                psi_y += gy * psi[d]
                chi_x += gx * chi[d]
                chi_y += gy * chi[d]
                eta_x += gx * eta[d]
                eta_y += gy * eta[d]
            u, v = chi_x - psi_y, chi_y + psi_x
            square = u * u + v * v
            root = np.sqrt(upwind * height[c] / np.sqrt(square)) if square > 0.0 else 0.0
            advected = weight[c, q] * keep * root * (u * eta_x + v * eta_y)
            for i in range(n):
                out[dofs[c, i]] += advected * basis[q, i]


@compiled
def integrals(dofs: NDArray, basis: NDArray, gradient: NDArray, weight: NDArray, psi: NDArray, chi: NDArray,
              eta: NDArray, h: NDArray, b: NDArray, height: NDArray, gravity: float, sums: NDArray,
              peaks: NDArray) -> None:
    """Add up what a state is judged by.

    Args:
        dofs, basis, gradient, weight, height: of `Cells`.
        psi, chi, eta, h, b: nodal values, ghosts included; b is the height of the ground.
        gravity: in m/s².
        sums: ∫ of 1, h, ½h|u|² + ½gh² + ghb, ½η²/h, |∇χ|²; added to in place.
        peaks: largest |u| (m/s) and |u|/height of the cell (1/s); changed in place.
    """
    n = dofs.shape[1]
    for c in range(dofs.shape[0]):
        for q in range(basis.shape[0]):
            psi_x = psi_y = chi_x = chi_y = value = depth = ground = 0.0
            for i in range(n):
                d = dofs[c, i]
                gx, gy = gradient[c, q, 0, i], gradient[c, q, 1, i]
                psi_x += gx * psi[d]
                psi_y += gy * psi[d]
                chi_x += gx * chi[d]
                chi_y += gy * chi[d]
                value += basis[q, i] * eta[d]
                depth += basis[q, i] * h[d]
                ground += basis[q, i] * b[d]
            u, v = chi_x - psi_y, chi_y + psi_x
            square, w = u * u + v * v, weight[c, q]
            sums[0] += w
            sums[1] += w * depth
            sums[2] += w * (0.5 * depth * square + 0.5 * gravity * depth * depth + gravity * depth * ground)
            sums[3] += w * 0.5 * value * value / depth
            sums[4] += w * (chi_x * chi_x + chi_y * chi_y)
            speed = np.sqrt(square)
            peaks[0] = max(peaks[0], speed)
            peaks[1] = max(peaks[1], speed / height[c])


@compiled
def norms(dofs: NDArray, basis: NDArray, weight: NDArray, field: NDArray, sums: NDArray) -> None:
    """Add ∫|field| and ∫field² to `sums`."""
    for c in range(dofs.shape[0]):
        for q in range(basis.shape[0]):
            value = 0.0
            for i in range(dofs.shape[1]):
                value += basis[q, i] * field[dofs[c, i]]
            sums[0] += weight[c, q] * abs(value)
            sums[1] += weight[c, q] * value * value
