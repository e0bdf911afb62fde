"""The scaling benchmark: its cases and matrices are what they say, its page hides no miss, a tiny case really runs."""

import dataclasses
import math

import bench_cases as cases
import bench_scaling as bench
import numpy as np
import pytest
import scaling_page as page_of

STENCILS = ("poisson2", "poisson3", "lognormal1", "lognormal3", "checkerboard", "aligned", "rotated", "delaunay",
            "wind0.1", "wind10", "heat", "helmholtz")
ELEMENTS = ("p2", "elasticity", "supg10", "heat_sink")


def dense(name, unknowns):
    system = cases.PROBLEMS[name][1](unknowns)
    return system, system.rows(0, system.size).toarray()


def solved(case, **other):
    """A result as a worker writes it."""
    gamg = {"iterations": 11, "setup": 1.0, "solve": 1.0, "reason": 2, "residual": 1e-9}
    return {**dataclasses.asdict(case), "date": "2026-01-01", "commit": "abc", "machine": "test", "load": 0.5,
            "size": case.unknowns, "setup": 2.0 * case.unknowns / 1e6, "solve": 10.0 * case.unknowns / 1e6,
            "iterations": 10, "iterations_fp32": 9, "reason": "CONVERGED_RTOL", "reason_fp32": "CONVERGED_RTOL",
            "residual": 1e-9, "memory": 1.0, "levels": 3, "tiles": 5, "complexity": 1.1, "digital": "", "gamg": gamg,
            **other}


def shot(case, fraction):
    return {**solved(case), "arrays": 5, "lines": 128, "gemv": 1e-3, "shoot": 1e-3 / fraction, "fraction": fraction}


def test_the_cases_are_consistent():
    assert len({case.key for case in bench.CASES}) == len(bench.CASES)
    assert {case.topic for case in bench.CASES} == set(cases.TOPICS)
    assert {case.problem for case in bench.CASES} == set(cases.PROBLEMS)
    kinds = {(case.topic, case.problem, case.chips, case.accelerator, case.ranks) for case in bench.CASES}
    small = {(c.topic, c.problem, c.chips, c.accelerator, c.ranks) for c in bench.CASES if c.unknowns <= 2e4}
    assert kinds == small, "a kind of case cannot be tried with --largest 2e4"


@pytest.mark.parametrize("name", STENCILS + ELEMENTS)
def test_a_matrix_is_as_its_system_says_and_the_same_in_parts(name):
    if name in ELEMENTS:
        pytest.importorskip("analogpde.fem", reason="needs DOLFINx", exc_type=ImportError)
    system = cases.PROBLEMS[name][1](400)
    matrix = system.rows(0, system.size)
    assert matrix.shape == (system.size, system.size)
    assert name == "heat_sink" or 300 <= system.size <= 540
    assert (matrix.diagonal() > 0).all()
    skew = abs(matrix - matrix.T).max() / abs(matrix).max()
    assert skew < 1e-14 if system.symmetric else skew > 1e-3
    middle = system.size // 2
    assert abs(matrix[middle:] - system.rows(middle, system.size)).max() == 0
    if system.size < 1000:
        assert np.linalg.eigvalsh((matrix + matrix.T).toarray())[0] > 0
    if system.nodes is not None:
        assert system.nodes.shape == (system.size // system.block, 3)


def test_the_large_stencil_is_made_in_chunks(monkeypatch):
    whole = dense("lognormal2", 400)[1]
    monkeypatch.setattr(cases, "CHUNK", 17)
    np.testing.assert_array_equal(dense("lognormal2", 400)[1], whole)


@pytest.mark.parametrize("dim", [2, 3])
def test_poisson_has_its_eigenvalue(dim):
    system, matrix = dense(f"poisson{dim}", 400)
    n = round(system.size ** (1 / dim))
    assert np.linalg.eigvalsh(matrix)[0] == pytest.approx(4 * dim * math.sin(math.pi / (2 * (n + 1))) ** 2)


@pytest.mark.parametrize("name", ["lognormal2", "checkerboard", "rotated", "wind1"])
def test_rows_away_from_the_border_sum_to_zero(name):
    matrix = dense(name, 400)[1]
    inner = matrix.sum(axis=1).reshape(20, 20)[1:-1, 1:-1]
    assert np.abs(inner).max() < 1e-12 * np.abs(matrix).max()


def test_anisotropy_turns_with_its_angle():
    straight, turned = cases.rotated(400, degrees=0.0), cases.rotated(400, degrees=90.0)
    swap = np.arange(400).reshape(20, 20).T.ravel()
    a, b = straight.rows(0, 400).toarray(), turned.rows(0, 400).toarray()
    np.testing.assert_allclose(a[np.ix_(swap, swap)], b, atol=1e-14)
    row = a[10 * 20 + 10].reshape(20, 20)
    assert abs(row[10, 11]) > 0.5 and row[10, 11] == pytest.approx(row[10, 9])  # the strong axis is x


def test_mass_and_stiffness_are_those_of_linear_triangles():
    matrix = dense("helmholtz", 400)[1]
    assert matrix.sum(axis=1).reshape(20, 20)[5, 5] == pytest.approx(1 / 21**2)  # S has none, M the area of a node
    assert matrix[210, 210] == pytest.approx(0.5 / 21**2 + 0.04)


def test_upwind_has_the_peclet_number_of_its_name():
    matrix = dense("wind10", 1600)[1]
    off = -(matrix - np.diag(matrix.diagonal()))
    largest = (off - 1).max() * math.sqrt(2)  # at the corner both components are largest; (v h/ε) = 2 Pe
    assert off.min() >= 0 and largest == pytest.approx(20, rel=0.06)


def test_the_random_field_is_normal_and_the_same_on_finer_grids():
    coarse, fine = cases.gaussian_field(101), cases.gaussian_field(201)
    np.testing.assert_allclose(coarse, fine[::2, ::2], atol=1e-9)
    assert abs(fine.mean()) < 0.2 and fine.std() == pytest.approx(1, abs=0.15)


def test_the_page_marks_every_miss(tmp_path):
    chosen = {case.key: case for case in bench.CASES}
    names = ("poisson2/10000/rram128/auto/1", "poisson2/100000/rram128/auto/1", "heat/10000/rram128/auto/1",
             "rotated/10000/rram128/auto/1", "p2/10000/rram128/auto/1", "shoot/poisson2/10000/ideal/auto/1",
             "shoot/poisson2/10000/rram128/auto/1")
    good, slow, stuck, broken, floor, fast, lazy = (chosen[name] for name in names)
    results = {
        good.key: solved(good, digital="the coarsest level"),
        slow.key: solved(slow, iterations=14),
        stuck.key: solved(stuck, iterations=None, reason="DIVERGED_ITS", residual=1e-5),
        broken.key: {**dataclasses.asdict(broken), "date": "", "commit": "", "machine": "", "load": 0.0,
                     "error": "long\nnot finished in 5 s"},
        floor.key: solved(floor, reason_fp32="DIVERGED_STAGNATED", gamg={**solved(floor)["gamg"], "reason": -3}),
        fast.key: shot(fast, 0.7), lazy.key: shot(lazy, 0.3),
    }
    page_of.write(results, tmp_path)
    page = (tmp_path / "scaling.md").read_text(encoding="utf-8")
    rows, listed = page.split("## Misses")
    assert rows.count("**miss**") == 5 and listed.count("\n- ") == 5 and "2 meet their target, 5 do not" in page
    for words in ("14 iterations, target 13", "DIVERGED_ITS", "not finished in 5 s", "DIVERGED_STAGNATED", "30%"):
        assert words in rows and words in listed
    assert "3 †" in rows and "failed (-3)" in rows
    for table in page.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert (tmp_path / "scaling.json").exists()


def test_checks_over_several_cases():
    results = {case.key: solved(case) for case in bench.CASES if case.topic in ("poisson2", "ranks")}
    found = {words: (values, met) for words, _, values, met in page_of.checks(results)}
    assert found["set-up, µs per unknown at 1e5, 1e6, 4e6"] == (pytest.approx([2, 2, 2]), True)
    assert found["solve per iteration, µs per unknown at 1e5, 1e6, 4e6"] == (pytest.approx([1, 1, 1]), True)
    assert found["time over that of CG + GAMG, 1e6, 1 rank"] == ([6.0], False)
    assert found["peak memory in GB, 1e6, 2 ranks"] == ([1.0], True)
    assert found["speed-up of set-up and solve from 1 to 2 ranks, 1e6"] == ([1.0], False)
    results["poisson2/100000/rram128/auto/8"]["iterations"] = 13
    results["poisson2/4000000/rram128/auto/1"]["iterations"] = 12
    found = {words: (values, met) for words, _, values, met in page_of.checks(results)}
    assert found["iterations on 1, 2, 4, 8 ranks, 1e5"] == ([10, 10, 10, 13], False)
    assert found["iterations at 1e5 and 4e6, rram128"] == ([10, 12], False)
    assert all(not values and not met for _, _, values, met in page_of.checks({}))


def test_a_tiny_case_runs_and_a_bad_one_says_why():
    pytest.importorskip("analogpde.petsc.stack", reason="needs PETSc and MPI", exc_type=ImportError)
    result = bench.run(bench.Case("poisson2", "poisson2", 900, 13), timeout=200)
    assert page_of.misses(result) == [], result
    assert result["size"] == 900 and result["levels"] >= 2 and result["tiles"] > 1 and result["complexity"] > 1
    assert result["residual"] <= 1e-8 and result["gamg"]["residual"] <= 1.01e-8 and 0.05 < result["memory"] < 2
    bad = bench.run(bench.Case("poisson2", "poisson2", 900, 13, chip="no-such-chip"), timeout=100)
    assert "no-such-chip" in bad["error"] and len(page_of.misses(bad)) == 1
