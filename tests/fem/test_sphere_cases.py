import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

from analogpde.errors import InvalidInput
from analogpde.fem import sphere_cases
from analogpde.fem.sphere_cases import GRAVITY, OMEGA, RADIUS

EDGES = np.linspace(-np.pi / 2, np.pi / 2, 40001)
MIDDLE = (EDGES[1:] + EDGES[:-1]) / 2
STEP = EDGES[1] - EDGES[0]


def zonal_wind(case):
    """u at EDGES from the circulation: a u cos θ = −∫ ζ a² cos θ dθ from the south pole on."""
    turning = case.vorticity(0 * MIDDLE, MIDDLE) * np.cos(MIDDLE) * STEP
    return -RADIUS * np.concatenate([[0.0], np.cumsum(turning)]) / np.maximum(np.cos(EDGES), 1e-9)


@pytest.mark.parametrize(("name", "fastest"), [("tc2", 38.61), ("tc5", 20.0), ("galewsky_balanced", 80.0)])
def test_zonal_flows_are_in_balance(name, fastest):
    # Williamson's equation for steady zonal flow: g dh/dθ = −a u (f + u tan θ/a); midpoint rule, O(step²)
    case = sphere_cases.case(name)
    u = zonal_wind(case)
    inner = np.abs(EDGES) < 1.5
    assert np.abs(u[inner]).max() == pytest.approx(fastest, rel=1e-3)
    assert abs(u[-2]) < 1e-3 * fastest  # no circulation around the north pole
    surface = case.depth(0 * EDGES, EDGES) + case.mountain(0 * EDGES, EDGES)
    force = -u * (2 * OMEGA * np.sin(EDGES) + u * np.tan(EDGES) / RADIUS) * RADIUS / GRAVITY
    slope = np.gradient(surface, STEP)
    assert np.abs(slope - force)[inner].max() < 2e-4 * np.abs(slope).max()


def test_the_jet_has_the_published_mean_depth_and_perturbation():
    balanced, perturbed = (sphere_cases.case(name) for name in ("galewsky_balanced", "galewsky"))
    depth = balanced.depth(0 * MIDDLE, MIDDLE)
    assert (depth * np.cos(MIDDLE)).sum() * STEP / 2 == pytest.approx(10000, abs=1e-3)
    longitude, latitude = np.array([0.0, np.pi / 2, 0.0]), np.array([np.pi / 4, np.pi / 4, 0.0])
    added = perturbed.depth(longitude, latitude) - balanced.depth(longitude, latitude)
    assert added == pytest.approx([120 * np.cos(np.pi / 4), 0, 0], abs=1e-6)  # Galewsky et al. 2004, equation 4
    assert balanced.steady and not perturbed.steady


def test_the_mountain_stands_at_30_north_90_west():
    case = sphere_cases.case("tc5")
    longitude, latitude = np.array([-np.pi / 2, -np.pi / 2 + np.pi / 18, np.pi - 1e-9]), np.full(3, np.pi / 6)
    assert case.mountain(longitude, latitude) == pytest.approx([2000, 1000, 0])
    balance = 9291.8 + 200  # a Ω u0 + u0²/2
    assert case.depth(longitude, latitude)[0] == pytest.approx(3960 - balance / (4 * GRAVITY), abs=0.01)


def test_the_wave_has_four_crests_and_rotates_its_planet_with_it():
    case = sphere_cases.case("tc6")
    longitude = np.linspace(-np.pi, np.pi, 361)
    for latitude in (0.3, -0.8):
        depth = case.depth(longitude, np.full(361, latitude))
        part = np.abs(np.fft.rfft(depth[:-1]))[1:13]
        assert np.argmax(part) == 3 and np.delete(part, [3, 7]).max() < 1e-9 * part[3]  # waves 4 and 8 alone
    assert case.depth(np.zeros(1), np.full(1, np.pi / 2)) == pytest.approx(8000)


def test_a_tilted_flow_is_the_same_flow_seen_from_elsewhere():
    flat, tilted = sphere_cases.case("tc2"), sphere_cases.case("tc2", 90.0)
    # The axis of 90 degrees meets the equator at longitude 180.
    where = np.array([np.pi]), np.array([0.0])
    pole = np.array([0.0]), np.array([np.pi / 2])
    for field in ("depth", "vorticity", "planetary"):
        assert getattr(tilted, field)(*where) == pytest.approx(getattr(flat, field)(*pole))


@pytest.mark.parametrize("text", ["def vorticity(x, y): return x", "import nothing_like_that", "depth = 3"])
def test_files_that_say_too_little_are_refused(tmp_path, text):
    path = tmp_path / "state.py"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="-initial"):
        sphere_cases.from_file(path)


STATE = "import math\n\ndef vorticity(x, y): return 0 * x\n\ndef depth(x, y): return 8000 + 0 * x\n"


@pytest.mark.parametrize(("text", "meant"), [
    (STATE.replace("vorticity", "vortcity"), "vorticity"), (STATE + "def mountian(x, y): return x", "mountain"),
    (STATE + "Days = 3", "days"), (STATE + "titel = 'x'", "title")])
def test_names_that_are_nearly_ours_are_refused(tmp_path, text, meant):
    path = tmp_path / "state.py"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=f"Did you mean {meant}"):
        sphere_cases.from_file(path)


def test_helpers_and_names_that_are_there_are_no_mistakes(tmp_path):
    path = tmp_path / "state.py"
    path.write_text(STATE + "from math import dist as divergense\ndef depth0(x, y): return x\n"
                    "def _montain(x): return x\ndef coriolis(y): return y\nday = 86400\n"
                    "days = 3 * day / day\nspeed = 5\nspeeds = [1]\n")
    case = sphere_cases.from_file(path)
    assert (case.days, case.speed) == (3.0, 5.0)
