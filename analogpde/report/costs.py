"""The estimated cost in words: shared by the text and the page."""

from __future__ import annotations

from typing import Any

from analogpde.cost.constants import CONSTANTS
from analogpde.report import words

RIVALS = {"hbm": "gpu", "sram": "sram"}
CAUTION = ("Estimates from counts and a component model, not measurements of a chip; ranges: every constant at the end "
           "of its range that is worst, and best, for the chip. The time of the emulation says nothing about it.")


def rows(cost: dict[str, Any]) -> list[tuple[str, str]]:
    """Return label and words of each line."""
    written = cost["programming"]
    lines = []
    for memory, where in (("hbm", "is a GPU"), ("sram", "computes in SRAM beside the tiles")):
        parts, times = cost["energy"][memory], cost["seconds"][memory]
        lines.append((f"chip, {memory.upper()} host",
                      f"{_unit(sum(parts.values()), 'J')}: {_shares(parts)}; {_unit(sum(times.values()), 's')}: "
                      f"{_shares(times)}. The host {where}"))
    lines.append(("programming", f"{_unit(written['energy'], 'J')} in {_unit(written['seconds'], 's')}, "
                  f"{written['pulses']:.3g} write–verify pulses"))
    lines.append(("area", f"{1e6 * sum(cost['area'].values()):.3g} mm² of tiles: {_shares(cost['area'])}"))
    names = {"hbm": "a GPU with LU factors" if cost.get("dense") else "a GPU with CG + GAMG",
             "sram": "the same algorithm with stored inverses in SRAM"}
    for memory, key in RIVALS.items():
        digital, ratio = cost["digital"][key], cost["ratios"]
        low, high = (_times(value) for value in cost["ranges"][memory])
        modelled = ", counts modelled" if memory == "hbm" and cost["modelled_gamg"] else ""
        lines.append((f"against {key.upper()}",
                      f"{names[memory]}{modelled}: {_unit(digital['energy'], 'J')} in "
                      f"{_unit(digital['seconds'], 's')}. It needs {_times(ratio[f'energy_{memory}'])} the chip's "
                      f"energy ({low} to {high} over the ranges) and {_times(ratio[f'time_{memory}'])} its time, "
                      f"programming included; {_pays(cost, memory)}"))
    weighty = [bar["constant"] for bar in cost["sensitivity"][:3]]
    lines.append(("most uncertain", "; ".join(
        f"{CONSTANTS[name].meaning} ({CONSTANTS[name].confidence})" for name in weighty if name in CONSTANTS)))
    return lines


def title(cost: dict[str, Any]) -> str:
    """Return a heading."""
    count = cost["right_hand_sides"]
    name = f", prefix '{cost['prefix']}'" if cost["prefix"] else ""
    return f"estimated cost of {words.count(count)} solve{'s' if count != 1 else ''}{name}"


def _pays(cost: dict[str, Any], memory: str) -> str:
    after = cost["break_even"][memory]
    if after is None:
        ahead = (cost["ratios"][f"energy_{memory}"] or 0.0) > 1.0
        return "programming never pays off, as each solve costs the chip more" + (
            ": it is ahead only while few solves share the set-up" if ahead else "")
    sides = max(1, round(after))
    return f"programming pays off in energy after {sides:,} right-hand side{'s' if sides > 1 else ''}"


def _times(value: float | None) -> str:
    return "no" if value is None else f"{value:.2g} times"


def _shares(parts: dict[str, float]) -> str:
    """Return the parts above 2 %, largest first."""
    total = sum(parts.values()) or 1.0
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value / total:.0%}" for name, value in ordered if value > 0.02 * total)


def _unit(value: float, unit: str) -> str:
    """Return a value with three digits and an SI prefix."""
    for prefix, scale in (("", 1.0), ("m", 1e-3), ("µ", 1e-6), ("n", 1e-9), ("p", 1e-12)):
        if value >= scale:
            return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
