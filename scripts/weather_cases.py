"""The cases of `study_weather.py`: what runs, and what is shown of it beside what is published."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

SOLVERS = {
    "FP64": "-ksp_type cg -pc_type gamg -ksp_rtol 1e-8",
    "rram128": "-ksp_type analog -analog_chip rram128",
    "pku2025": "-ksp_type analog -analog_chip pku2025",
}
"""By the name of their columns."""

Format = Callable[[float], str]


def small(value: float) -> str:
    """Return an error or a drift."""
    return f"{value:.1e}"


def change(value: float) -> str:
    """Return a signed drift."""
    return f"{value:+.1e}"


def digits(count: int) -> Format:
    """Return what writes numbers with so many decimals."""
    return lambda value: f"{value:,.{count}f}"


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Args:
        answer: name in the report.
        label: on the page.
        published: what others have, and what is asked here; words.
        show: writes the value.
    """

    answer: str
    label: str
    published: str = ""
    show: Format = small


@dataclass(frozen=True)
class Case:
    """A run of a problem script, made by every solver.

    Args:
        title: heading.
        script: of problems/.
        options: of the script.
        rows: what is shown.
        full: only with --full.
        picture: whether the page shows the script's picture.
        note: below the table.
        by_hand: only with --only: hours. Such a run of shallow_water.py leaves checkpoints in results/weather/ and goes
            on from them.
        solvers: that make it.
        section: whether the page has a table of its own for it.
        wall: what is asked of the wall time, which the table then shows; words.
        reference: case whose last checkpoint by FP64, if there is one in results/weather/, it is compared with.
    """

    title: str
    script: str
    options: str
    rows: tuple[Row, ...]
    full: bool = True
    picture: bool = False
    note: str = ""
    by_hand: bool = False
    solvers: tuple[str, ...] = tuple(SOLVERS)
    section: bool = True
    wall: str = ""
    reference: str = ""


HAURWITZ = math.degrees((4 * 7 * 7.848e-6 - 2 * 7.292e-5) / (5 * 6) * 86400)
"""Rotation of the wave 4 of TC6 in the nondivergent equation, degrees/day: (R (3 + R) ω − 2 Ω)/((1 + R) (2 + R))."""

OVER_CONVERGED = "rotation of the wave over the converged one"
"""An answer that the page adds, less 1."""

HEAT = (Row("relative change of the integral of density times theta'", "change of ∫ρ₀θ′, the state",
            "exact by construction", change),
        Row("the same of the field as solved", "the same, the solved field", "accuracy of the solves", change))
STRAKA = (
    Row("front (-1 K at the ground)", "front, m", "15,537; asked for 15,200…15,700", digits(0)),
    Row("smallest potential temperature perturbation", "smallest θ′, K", "−9.77; asked for −9…−10.5", digits(2)),
    Row("largest potential temperature perturbation", "largest θ′, K", "0", digits(2)),
    Row("largest horizontal wind", "largest u, m/s", "36.46", digits(2)),
    Row("smallest horizontal wind", "smallest u, m/s", "−15.19", digits(2)),
    Row("largest updraught", "largest w, m/s", "12.93", digits(2)),
    Row("largest downdraught", "smallest w, m/s", "−15.95", digits(2)),
    Row("rotors", "rotors", "3", digits(0)),
    *HEAT,
)
BUBBLE = (
    Row("top of the bubble (0.1 K on its axis)", "top of the bubble, m", "figure only", digits(0)),
    Row("largest potential temperature perturbation", "largest θ′, K", "0.5 at the start, never more", digits(3)),
    Row("largest updraught", "largest w, m/s", "", digits(2)),
    Row("kinetic energy, of the potential energy released", "kinetic energy, of the potential released",
        "1 without viscosity", digits(3)),
    *HEAT,
)
DRIFTS = (Row("relative change of mass", "change of mass", "exact by construction", change),
          Row("relative change of energy", "change of energy", "", change),
          Row("relative change of potential enstrophy", "change of potential enstrophy", "", change))


def drifts(energy: str = "", enstrophy: str = "") -> tuple[Row, ...]:
    """Return the rows of the invariants with what is asked of them."""
    return (DRIFTS[0], Row(DRIFTS[1].answer, DRIFTS[1].label, energy, change),
            Row(DRIFTS[2].answer, DRIFTS[2].label, enstrophy, change))


def tc2(l2: str, linf: str) -> tuple[Row, ...]:
    """Return the rows of a steady flow with what is asked of its errors."""
    return (Row("relative l1 error of the depth", "l1(h)"), Row("relative l2 error of the depth", "l2(h)", l2),
            Row("relative l∞ error of the depth", "l∞(h)", linf),
            Row("relative l2 error of the vorticity", "l2(ζ)"), Row("relative l∞ error of the vorticity", "l∞(ζ)"),
            *DRIFTS,
            Row("divergence energy at the end over that at day 2", "∫∣∇χ∣² at the end, of that at day 2",
                "below 3", digits(2)))


GALEWSKY = (
    Row("largest vorticity", "largest ζ, 10⁻⁵/s", "asked for 12…15 (day 6)", digits(2)),
    Row("smallest vorticity", "smallest ζ, 10⁻⁵/s", "", digits(2)),
    Row("largest wind", "largest wind, m/s", "80 at the start", digits(1)),
    Row("potential vorticity beyond its initial range, of that range", "PV beyond its initial range, of that range",
        "0"),
    *DRIFTS,
)

APART = tuple(Row(f"relative {norm} difference of the surface from the reference", f"{norm} of the surface, to level 5")
              for norm in ("l1", "l2", "l∞"))
GME = ("The reference is this model's own on level 5, by FP64 solves, here and above. The German Weather Service's "
       "GME, a grid-point model on the same icosahedral grids, publishes its error after 15 days against NCAR's "
       "spectral model: l2(h) 1.4e-3 with 10,242 points (level 4 here) and 7.2e-4 with 40,962 "
       "(<http://icon.enes.org/swm/gmeswm/node6.html>, table 4; its mountain is the spectral one).")


CASES = {
    "straka-200": Case("Density current, nodes 200 m apart", "density_current", "-case straka -resolution 200",
                       (STRAKA[0], replace(STRAKA[1], published="−9.77; asked for −9…−10.5 at 100 m"), *STRAKA[2:]),
                       full=False, note="Nodes 200 m apart do not resolve the rotors: θ′ overshoots, with tiles or "
                       "without."),
    "straka-100": Case("Density current, nodes 100 m apart", "density_current", "-case straka -resolution 100", STRAKA,
                       picture=True),
    "straka-100-anelastic": Case("The same, anelastic", "density_current",
                                 "-case straka -resolution 100 -equations anelastic", STRAKA[:-2],
                                 note="Straka's reference is compressible. What the anelastic equations leave out, of "
                                 "the order θ′/θ₀ = 5 %, is what the front lags by."),
    "straka-50": Case("Density current, nodes 50 m apart", "density_current", "-case straka -resolution 50", STRAKA,
                      solvers=("FP64", "rram128")),
    "bubble-25": Case("Warm bubble, nodes 25 m apart", "density_current", "-case bubble -resolution 25", BUBBLE,
                      full=False),
    "bubble-10": Case("Warm bubble, nodes 10 m apart", "density_current", "-case bubble", BUBBLE, picture=True,
                      note="The top is not converged: nodes 10 m apart give another one than 25 m."),
    "tc2-L2": Case("TC2, level 2, 5 days", "shallow_water", "-case tc2 -level 2", tc2("", ""), full=False),
    "tc2-L3": Case("TC2, level 3, 5 days", "shallow_water", "-case tc2 -level 3 -dt 1800",
                   tc2("asked for ≤ 5e-6", "asked for ≤ 3e-5"), full=False),
    "tc2-L3-45": Case("TC2, level 3, 5 days, axes at 45°", "shallow_water",
                      "-case tc2 -level 3 -dt 1800 -rotation 45", tc2("asked for ≤ 5e-6", "asked for ≤ 3e-5"),
                      note="The flow goes over the poles, which to an icosahedron are two vertices of twelve."),
    "tc2-L4": Case("TC2, level 4, 5 days", "shallow_water", "-case tc2 -level 4 -dt 900", tc2("asked for ≤ 4e-7", "")),
    "tc2-L4-12d": Case("TC2, level 4, 12 days", "shallow_water", "-case tc2 -level 4 -days 12",
                       tc2("asked for ≤ 1e-6", "")),
    "tc2-L3-20d": Case("TC2, level 3, 20 days", "shallow_water", "-case tc2 -level 3 -days 20", tc2("", "")),
    "tc5-L2": Case("TC5, level 2, 2 days", "shallow_water", "-case tc5 -level 2 -days 2", drifts(), full=False),
    "tc5-L3": Case("TC5, level 3, 15 days", "shallow_water", "-case tc5 -level 3 -days 15",
                   (*drifts("asked for ≤ 2e-5", "asked for ≤ 1e-3"), *APART,
                    Row("smallest depth", "smallest h, m", "", digits(0)),
                    Row("largest depth", "largest h, m", "", digits(0))), picture=True, reference="tc5-L5"),
    "tc5-L4": Case("TC5, level 4, 15 days", "shallow_water", "-case tc5 -level 4 -days 15", (*drifts(), *APART),
                   reference="tc5-L5",
                   note="Levels 3 and 4 with their own time steps are equally far from level 5 with its: the mountain, "
                   "there from one moment to the next, sends out gravity waves, which long implicit steps slow and "
                   "damp. With one time step for all levels the rest is of third order:"),
} | {
    f"tc5-L{level}-fine": Case(f"TC5, level {level}, 15 days, with the time step of level 5", "shallow_water",
                               f"-case tc5 -level {level} -days 15 -dt 369.863013698630", APART, reference="tc5-L5",
                               solvers=("FP64", "rram128"), note=GME if level == 4 else "")
    for level in (3, 4)
} | {
    "tc5-L5": Case("TC5, level 5", "shallow_water", "-case tc5 -level 5 -days 15", drifts(), solvers=("FP64",),
                   by_hand=True, section=False),
    "tc6-L3": Case("TC6, level 3, 7 days", "shallow_water", "-case tc6 -level 3 -days 7",
                   (Row("rotation of the wave", "rotation of the wave, °/day",
                        f"{HAURWITZ:.3f} in the nondivergent model (Haurwitz); slower with a free surface", digits(3)),
                    Row(OVER_CONVERGED, "the same, over the converged one (see Speed)", "asked for within 2 %",
                        lambda value: f"{value:+.2%}"),
                    Row("amplitude of the wave over that at the start", "amplitude of wave 4, of the first", "",
                        digits(2)),
                    *drifts("asked for ≤ 5e-5")), picture=True),
    "tc6-L3-14d": Case("TC6, level 3, 14 days", "shallow_water", "-case tc6 -level 3 -days 14",
                       (Row("rotation of the wave", "rotation of the wave, °/day", "", digits(3)),
                        Row("amplitude of the wave over that at the start", "amplitude of wave 4, of the first", "",
                            digits(2)), *drifts()), picture=True,
                       note="Williamson's case is of 14 days. The wave is unstable (Thuburn and Li, Tellus 52A, 2000): "
                       "how long it stays depends on the errors of the mesh, not of the tiles."),
    "galewsky-L3": Case("Galewsky's jet, level 3, 6 days", "shallow_water", "-case galewsky -level 3 -days 6",
                        GALEWSKY, full=False,
                        note="On levels 2 and 3 the jet rolls up in waves of the mesh, five around the Earth as the "
                        "icosahedron has edges around its poles, not in the perturbation's: this shows that it runs, "
                        "no more."),
    "galewsky-L4": Case("Galewsky's jet, level 4, 6 days", "shallow_water", "-case galewsky -level 4 -days 6",
                        GALEWSKY, note="The mesh itself, with its five-fold symmetry, starts five waves around the "
                        "Earth before the perturbation's get there: good for a look, not for comparison."),
    "galewsky-balanced-L4": Case(
        "Galewsky's jet without the perturbation, level 4, 5 days", "shallow_water",
        "-case galewsky_balanced -level 4 -days 5",
        (Row("relative l2 error of the depth", "l2(h)"), Row("relative l∞ error of the depth", "l∞(h)"), *DRIFTS),
        note="The jet is in balance and unstable: the errors are what the five-fold symmetry of the mesh has become."),
    "galewsky-L5": Case("Galewsky's jet, level 5, 6 days, without viscosity", "shallow_water",
                        "-case galewsky -level 5 -days 6", GALEWSKY, by_hand=True, picture=True,
                        wall="asked for ≤ 2,700",
                        note="Without viscosity not even the published spectral solution is converged at T682 (Scott, "
                        "<https://www.nwra.com/resumes/scott/research/swbti.html>): the largest vorticity is one of "
                        "the mesh."),
    "galewsky-L5-subscales": Case("Galewsky's jet, level 5, 6 days, closure without bounds", "shallow_water",
                                  "-case galewsky -level 5 -days 6 -closure subscales", GALEWSKY, by_hand=True,
                                  picture=True, note="Potential vorticity leaves the range of the initial state, "
                                  "which the exact flow would keep. That is what the bounds are for."),
    "galewsky-L5-anticipated": Case("Galewsky's jet, level 5, 6 days, anticipated potential vorticity", "shallow_water",
                                    "-case galewsky -level 5 -days 6 -closure anticipated", GALEWSKY, by_hand=True,
                                    picture=True, note="This closure takes enstrophy out of all scales, and turns the "
                                    "wave of TC6 too fast (see Closures)."),
    "galewsky-L5-viscous": Case("Galewsky's jet, level 5, 6 days, viscosity 10⁵ m²/s", "shallow_water",
                                "-case galewsky -level 5 -days 6 -viscosity 1e5", GALEWSKY, by_hand=True, picture=True,
                                note="With a viscosity that stays the same on finer meshes the solution converges; "
                                "the same page of Scott's recommends it for tests. Here it acts on the vorticity "
                                "only."),
} | {
    f"tc6-L{level}-{name}": Case(f"TC6, level {level}, {name}", "shallow_water",
                                 f"-case tc6 -level {level} -days 7 {options}".rstrip(),
                                 (Row("rotation of the wave", "", "", digits(2)), DRIFTS[2]), solvers=("FP64",),
                                 section=False)
    for level in (2, 3) for name, options in (("none", "-upwind 0"), ("anticipated", "-closure anticipated"),
                                              ("subscales", "-closure subscales"), ("bounded", ""))
} | {
    f"tc6-{name}": Case(f"TC6, {name}", "shallow_water", f"-case tc6 -days 7 {options}",
                        (Row("rotation of the wave", "", "", digits(3)),
                         Row("amplitude of the wave over that at the start", "", "", digits(3))),
                        solvers=("FP64",), section=False)
    for name, options in (("L3-half", "-level 3 -dt 336.4"), ("L4", "-level 4"), ("L4-half", "-level 4 -dt 168.2"))
}
