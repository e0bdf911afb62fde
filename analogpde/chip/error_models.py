"""How far a programmed conductance is off, as a function of the conductance itself: published fits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorModel:
    """Standard deviation of a programmed conductance, a polynomial of the conductance.

    Args:
        coefficients: c in σ(µS) = Σ c_i G(µS)^i.
        low, high: conductances that were measured, µS; nothing is known beyond.
        source: citation, and where the fit was read.
    """

    coefficients: tuple[float, ...]
    low: float
    high: float
    source: str


MODELS: dict[str, ErrorModel] = {
    "wan2022": ErrorModel(
        (1.053, 0.2374, -1.167e-2, 1.536e-4), 0.0, 40.0,
        "NeuRRAM, HfOx RRAM, 1 s after write–verify: Wan et al., Nature 2022; fit of CrossSim's RRAM_Wan"),
    "milo2021": ErrorModel(
        (4.782, -0.0091), 50.0, 225.0,
        "HfO2 RRAM with a verify algorithm: Milo et al., IRPS 2021; fit of CrossSim's RRAM_Milo"),
    "joshi2020": ErrorModel(
        (0.263, 1.965 / 25.0, -1.173 / 25.0**2), 0.0, 25.0,
        "doped-GST PCM after iterative programming: Joshi et al., Nature Communications 2020; fit of aihwkit's "
        "PCMLikeNoiseModel, largest conductance 25 µS"),
    "cmo_hfox_fine": ErrorModel(
        (0.00081107, 0.00106879), 0.0, 100.0,
        "CMO/HfOx RRAM, acceptance window 0.2 %: Falcone et al.; fit of aihwkit's ReRamCMONoiseModel"),
    "cmo_hfox": ErrorModel(
        (0.0112185391, 0.01129027418), 0.0, 100.0,
        "CMO/HfOx RRAM, acceptance window 2 %: Falcone et al.; fit of aihwkit's ReRamCMONoiseModel"),
}
