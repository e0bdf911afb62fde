"""The study of weather cases: what it keeps of a report, and the page."""

import argparse
import json
from pathlib import Path

import pytest
import study_weather

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(study_weather, "DATA", tmp_path / "weather.json")
    monkeypatch.setattr(study_weather, "PAGE", tmp_path / "weather.md")
    monkeypatch.setattr(study_weather, "IMAGES", tmp_path)
    return study_weather


def report(front, seconds):
    solve = {"prefix": "poisson_", "count": 4, "iterations_total": 10, "seconds_solve": seconds,
             "operations": {"tiles_programmed": 7}}
    answers = [{"name": "front (-1 K at the ground)", "value": front}, {"name": "relative l2 error of the depth",
                                                                        "value": front / 1e10}]
    return {"problem": {"results": answers, "parameters": {}}, "unknowns": 4257, "solves": [solve],
            "totals": {"seconds_assemble": seconds}}


PROGRESS = "straka: 20 of 80, 30.0 s  t 25 s\nstraka: 40 of 80, 34.0 s\nnoise\nstraka: 80 of 80, 42.0 s  edge 1 m\n"


def test_time_per_step_leaves_the_beginning_out(study):
    kept = study.condensed(report(15400.0, 6.0), PROGRESS)
    assert kept["seconds_per_step"] == pytest.approx((42 - 30) / (80 - 20)) and kept["steps"] == 80
    assert kept["solves"]["poisson_"] == {"count": 4, "iterations": 2.5, "seconds": 6.0, "tiles": 7}
    assert study.condensed(report(1.0, 1.0), "")["seconds_per_step"] is None


def test_the_page_puts_solvers_side_by_side(study):
    ranks = {"ranks": 2}
    data = {"straka-100": {"FP64": ranks | study.condensed(report(15390.0, 1.0), PROGRESS),
                           "rram128": ranks | study.condensed(report(15391.0, 3.0), PROGRESS.replace("42.0", "66.0")),
                           "pku2025": {"error": "did not converge"}}}
    page = study.page(data)
    assert "| front, m | 15,537; asked for 15,200…15,700 | 15,390 | 15,391 |  |" in page
    assert "pku2025: did not converge" in page
    assert "| rram128 | 2 | 0.600 | 3.0 | 50% | poisson 2.5 |" in page
    assert "shallow_water" not in page  # no link to what has no result


def test_orders_are_those_of_the_errors(study):
    data = {name: {"FP64": study.condensed(report(error, 1.0), "")}
            for name, error in (("tc2-L2", 64.0), ("tc2-L3", 8.0), ("tc2-L4", 4.0))}
    assert "| L2 → L3 |  | 3.00 |" in study.orders(data) and "| L2 → L4 | ≥ 3 | 2.00 |" in study.orders(data)


def test_the_speed_of_the_wave_is_compared_with_where_the_levels_go(study):
    def entry(speed):
        answers = {"rotation of the wave": speed, "amplitude of the wave over that at the start": 1.0}
        return {"FP64": {"wall": 2400.4, "ranks": 2, "edition": 4, "answers": answers}}

    # Errors of 0.8, 0.1 and 0.0125 of a wave of 11.2: of third order
    data = {name: entry(11.2 + error) for name, error in (("tc6-L2-bounded", 0.8), ("tc6-L3", 0.1), ("tc6-L4", 0.0125))}
    assert study.converged_speed(data) == pytest.approx(11.2, abs=1e-9)
    assert f"| level 3 | 11.3000 | {0.1 / 11.2:+.3%} | 1.000 |" in study.speeds(study.with_speeds(data))
    case = study.CASES["tc6-L3"]
    assert f"| asked for within 2 % | {0.1 / 11.2:+.2%} |" in study.physics(case, study.with_speeds(data)["tc6-L3"])
    del data["tc6-L2-bounded"]
    assert study.converged_speed(data) is None and study.speeds(study.with_speeds(data)) == ""
    jet = {"FP64": {"wall": 2400.4, "ranks": 2}}
    assert "| wall time, s (ranks) | asked for ≤ 2,700 | 2,400 (2) |" in study.physics(study.CASES["galewsky-L5"], jet)


def test_what_has_a_result_is_not_run_again(study, monkeypatch):
    made = []

    def run(name, solver, ranks):
        made.append(solver)
        found = {"error": "killed"} if solver == "pku2025" else study.condensed(report(1.0, 1.0), "")
        return {"wall": 1.0, "ranks": ranks} | found

    monkeypatch.setattr(study, "run", run)
    monkeypatch.setattr("sys.argv", ["study_weather.py", "--only", "straka-200"])
    assert study.main() == 1 and made == list(study.SOLVERS)
    made.clear()
    study.main()
    assert made == ["pku2025"]  # it failed
    assert set(json.loads(study.DATA.read_text())["straka-200"]) == set(study.SOLVERS)
    assert "Density current" in study.PAGE.read_text()


def test_unknown_names_are_refused(study):
    with pytest.raises(argparse.ArgumentTypeError, match="straka-100"):
        study.words(study.CASES)("straka-1000")
