"""Von Neumann scan of the shallow-water time stepping: python scripts/scan_stability.py [picture.png].

Prints, for three semi-implicit schemes and several depths, the largest advective frequency times dt up to which no wave
grows, whatever its gravity-wave frequency, and draws the growth per step.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from analogpde.fem import multistep  # noqa: E402
from analogpde.fem.picture import colour_bar, new_figure  # noqa: E402

SCHEMES: tuple[tuple[str, dict], ...] = (
    ("AM2*–AX2*", {}),
    ("Crank–Nicolson, AB2", {"explicit": (1.5, -0.5), "implicit": (0.5, 0.5)}),
    ("Crank–Nicolson, AB3", {"explicit": (23 / 12, -16 / 12, 5 / 12), "implicit": (0.5, 0.5)}),
)
ADVECTIVE = np.linspace(0, 1, 41)
RATIOS = np.linspace(0.3, 1.3, 21)
GRAVITY = np.concatenate([np.linspace(0, 3, 25), np.geomspace(3.3, 300, 25)])
UPWIND = (0.0, 0.125, 0.25, 0.375, 0.5, 1.0)
STABLE = 1 + 1e-7


def growth(weights: dict) -> np.ndarray:
    """Return the largest amplification per step, (ratios, advective)."""
    return np.array([[max(multistep.amplification(a, w, r, **weights) for w in GRAVITY) for a in ADVECTIVE]
                     for r in RATIOS])


def limit(row: np.ndarray) -> float:
    """Return the largest frequency up to which no wave grows; NaN if some do without advection."""
    unstable = np.flatnonzero(row > STABLE)
    count = unstable[0] if len(unstable) else len(row)
    return float(ADVECTIVE[count - 1]) if count else float("nan")


def main(path: Path) -> None:
    """Print and draw."""
    figure = new_figure(9.0, 3.6)
    figure.set_layout_engine("constrained")
    print("| scheme | " + " | ".join(f"h₀/H = {r:.1f}" for r in RATIOS[::4]) + " |")
    print("| --- |" + " --- |" * len(RATIOS[::4]))
    axes = figure.subplots(1, len(SCHEMES), sharey=True)
    for axis, (name, weights) in zip(axes, SCHEMES, strict=True):
        amplification = growth(weights)
        limits = [limit(row) for row in amplification]
        print(f"| {name} | " + " | ".join("never" if x != x else f"{x:.2f}" for x in limits[::4]) + " |")
        axis.imshow(np.log10(np.maximum(amplification - 1, 1e-8)), origin="lower", aspect="auto", cmap="viridis",
                    extent=(0, 1, RATIOS[0], RATIOS[-1]), vmin=-8, vmax=0)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("advective frequency × dt", fontsize=9)
        axis.axvline(multistep.STABLE, color="white", linewidth=1, linestyle=":")
    axes[0].set_ylabel("mean depth / reference depth", fontsize=9)
    colour_bar(figure, list(axes), "viridis", (-8, 0), "log₁₀ of growth per step", location="right", pad=0.02)
    figure.savefig(path, dpi=90)
    print("\n| upwinding, of d/(2 p ∣u∣) | " + " | ".join(f"{u:g}" for u in UPWIND) + " |")
    print("| --- |" + " --- |" * len(UPWIND))
    for degree in (1, 2):
        limits = [limit(np.array([multistep.upwinded(a, u, degree) for a in ADVECTIVE])) for u in UPWIND]
        print(f"| degree {degree} | " + " | ".join(f"{x:.2f}" for x in limits) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, nargs="?", default=ROOT / "docs/images/shallow_water_stability.png")
    main(parser.parse_args().picture)
