"""The cost study: its matrices, its counts of the rival, what it writes."""

import json
import sys
from functools import partial

import numpy as np
import pytest
import study_cost as study


def test_the_spheres_matrix_is_the_laplace_beltrami_operator():
    """z is an eigenfunction of −Δ, eigenvalue 2: zᵀSz = 2 ∫z² = 2 · 4π/3, less what flat triangles cut off, O(h²)."""
    from analogpde.fem.sphere import icosphere

    s, (points, _) = study.sphere(3), icosphere(3)
    assert abs(s - s.T).max() < 1e-14
    assert np.abs(s @ np.ones(len(points))).max() < 1e-13
    assert points[:, 2] @ s @ points[:, 2] == pytest.approx(8 * np.pi / 3, rel=0.02)


def test_one_case_from_solve_to_estimates(monkeypatch):
    monkeypatch.setitem(study.CASES, "Poisson", {"small": partial(study.stencil, "poisson2", 900)})
    monkeypatch.setattr(sys, "argv", sys.argv[:1])
    case = study.measure("Poisson", "small")
    assert case["unknowns"] == 900
    assert case["reason"].startswith("CONVERGED")
    assert case["gamg_reason"] > 0
    assert case["first"]["cells_written"] > 0 == case["second"]["cells_written"]
    # a V-cycle with two Chebyshev steps before and after, and CG's own product: six products and more of 2 nnz flops
    assert case["gamg_flops"] > 6 * 2 * case["entries"] * case["gamg_iterations"]
    # twelve bytes for two flops at least, and less than ten times that with all vectors
    assert 6 * case["gamg_flops"] * 0.5 < case["gamg_bytes"] < 60 * case["gamg_flops"]
    one, many = study.run_of(case), study.run_of(case, 10)
    assert many.operations.cells_written == one.operations.cells_written
    assert many.operations.inv_shots == 10 * one.operations.inv_shots
    assert many.gamg_bytes == 10 * one.gamg_bytes
    page = study.text([case])
    for part in ("Poisson, 900", "dense Gram matrix", "`amplifier_merit`", "pays off against GPU"):
        assert part in page


def test_the_page_is_made_of_the_data():
    data = json.loads(study.DATA.read_text(encoding="utf-8"))
    page = study.PAGE.read_text(encoding="utf-8")
    for case in data.values():
        assert f"| {case['problem']}, {case['unknowns']:,} |" in page
        assert case["reason"].startswith("CONVERGED")
