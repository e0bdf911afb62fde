"""Named chips.

`published` values were read in the named source, `second-hand` ones in a summary of it, `assumed` ones are this
project's plausible choice where nothing was published.
"""

from __future__ import annotations

import dataclasses
import os

from analogpde.chip.ageing import Drift
from analogpde.chip.cell import Cell
from analogpde.chip.chip import Chip, Source
from analogpde.chip.converter import Converter
from analogpde.chip.error_models import MODELS
from analogpde.chip.writing import Writing
from analogpde.errors import InvalidInput, did_you_mean

_PKU = "Zuo et al., Nature Electronics 2025, doi:10.1038/s41928-025-01477-0"
_MANNOCCI = ("Mannocci et al., Nature Electronics 2026: two 64×64 SRAM-based arrays, 90 nm CMOS, on-chip op-amps and "
             "converters")
_INTERVIEW = "interview with the paper's authors"
_WAN = "Wan et al., Nature 2022 (NeuRRAM)"

# What all presets share.
_COMMON = {
    "bound_repeats": Source("bound management of aihwkit: half the input while outputs clip", "second-hand"),
    "amplifier.compensated": Source("no account of a chip mentions it; without finite gain it says nothing", "assumed"),
    "wire.elimination": Source("a matter of the emulator: exact where that is affordable", "assumed"),
    "cell.sign_mapping": Source("differential pairs; accounts of the 2025 paper name them and a bias column, "
                                "-analog_sign_mapping bias", "second-hand"),
    "cell.level_spacing": Source("no account of a chip says; verify loops are mostly set to equal distances",
                                 "assumed"),
    "cell.slices": Source("one cell a slice: by definition of a slice", "assumed"),
    "drift.start": Source("one second: the time after which RRAM statistics are commonly given (Wan et al. 2022)",
                          "second-hand"),
    "faults.spares": Source("as many as the emulator tries; no account of a chip says", "assumed"),
    "writing.limit": Source("far above what working cells take: the number only prices stuck ones", "assumed"),
    "multiplier.cell_bits": Source(f"24 bits in 8 slices of 3; {_INTERVIEW}; {_PKU}", "published"),
    "multiplier.input_bits": Source("slices of the input as wide as those of the matrix", "assumed"),
    "multiplier.order": Source(f"in parallel or in turn, both are named; {_INTERVIEW}. Slice products are taken as "
                               "read to the last digit", "published"),
}

# The write–verify loop of filamentary RRAM.
_RRAM_WRITING = Writing(step=0.07, spread=0.037)
_RRAM_WRITTEN = {
    "writing.step": Source("such that cells spread over 16 levels take NeuRRAM's 8.5 pulses within ±2.5 % of the "
                           "window (8.52 µs a cell at 1 µs a pulse: CiMLoop's model of Wan et al. 2022; ±1 µS of 40 "
                           "µS: from memory)", "assumed"),
    "writing.spread": Source("3.7 % cycle to cycle, TaOx/HfOx cells of MELISO+'s device files", "published"),
}

IDEAL = Chip(
    name="ideal",
    title="No error at all: continuous cells, no noise, ideal converters.",
    sources={
        **_COMMON,
        "tile_size": Source("the size that the 2025 paper's authors announce next", "assumed"),
        "cell.conductance_max": Source(f"without errors it sets no result, only the scale of currents; as {_PKU}",
                                       "assumed"),
    },
)

PKU2025 = Chip(
    name="pku2025",
    title="The Peking University chip at its authors' announced next tile size.",
    tile_size=128,
    cell=Cell(bits=3, programming_error=0.02, read_noise=0.01, conductance_max=35e-6),
    dac=Converter(bits=4),
    adc=Converter(bits=4),
    drift=Drift(relaxation=0.0065),
    writing=_RRAM_WRITING,
    sources={
        **_COMMON,
        **_RRAM_WRITTEN,
        "drift.relaxation": Source(f"not in the accounts of the paper; that of {_WAN}, as in rram128", "assumed"),
        "tile_size": Source("announced next size (demonstrated: 16×16 on 8×8 arrays); interview with the authors",
                            "published"),
        "cell.bits": Source(f"8 levels, 0.5–35 µS, 1T1R TaOx; {_PKU}", "published"),
        "cell.conductance_max": Source(f"8 levels, 0.5–35 µS; {_PKU}", "published"),
        "cell.programming_error": Source("write–verify window; NeuRRAM measures 5–7 % one second after programming "
                                         "(Wan et al., Nature 2022), so 2 % needs a verify loop", "assumed"),
        "cell.read_noise": Source("about 1 % is advised for RRAM of this kind (Wan et al. 2022 model in aihwkit)",
                                  "second-hand"),
        "dac.bits": Source(f"4-bit converters at the INV array; {_PKU}", "second-hand"),
        "adc.bits": Source(f"4-bit converters at the INV array; {_PKU}", "second-hand"),
    },
)

RRAM128 = Chip(
    name="rram128",
    title="A plausible near-term foundry RRAM chip.",
    tile_size=128,
    cell=Cell(bits=4, programming_error=0.01, read_noise=0.005, conductance_max=40e-6),
    dac=Converter(bits=6),
    adc=Converter(bits=8),
    drift=Drift(relaxation=0.0065),
    writing=_RRAM_WRITING,
    sources={
        **_COMMON,
        **_RRAM_WRITTEN,
        "drift.relaxation": Source("deviation at 10 µS grows from 2.26 µS after 1 s to 3.72 µS after a day, of 40 µS "
                                   f"({_WAN}; fit of aihwkit's ReRamWan2022NoiseModel); the growth is put down to "
                                   "ln t", "second-hand"),
        "tile_size": Source("array size common to published RRAM macros (NeuroSim's default, NeuRRAM 256)", "assumed"),
        "cell.bits": Source("16 levels: NeuRRAM-class 4-bit cells with write–verify", "assumed"),
        "cell.conductance_max": Source("NeuRRAM window, 1–40 µS (Wan et al., Nature 2022)", "published"),
        "cell.programming_error": Source("between CMO/HfOx with a 0.2 % and a 2 % acceptance window "
                                         "(aihwkit ReRamCMONoiseModel)", "assumed"),
        "cell.read_noise": Source("half of the advised 1 %, averaged reads", "assumed"),
        "dac.bits": Source("input error is not amplified by the tile; 6 bits are cheap (ISAAC-class drivers)",
                           "assumed"),
        "adc.bits": Source("output error is amplified by the tile's condition; 8-bit SAR, ISAAC-class", "assumed"),
    },
)

SRAM64 = Chip(
    name="sram64",
    title="The largest fully integrated closed-loop INV chip, 64×64.",
    tile_size=64,
    cell=Cell(bits=4, programming_error=0.005, read_noise=0.002, conductance_max=100e-6),
    dac=Converter(bits=8),
    adc=Converter(bits=8),
    sources={
        **_COMMON,
        "tile_size": Source(_MANNOCCI, "published"),
        "cell.bits": Source("bits of the SRAM-switched resistor: not in the abstract, 4 taken", "assumed"),
        "cell.programming_error": Source("resistor mismatch; no write error in SRAM", "assumed"),
        "cell.read_noise": Source("thermal noise of resistors and amplifiers only", "assumed"),
        "cell.conductance_max": Source("integrated poly resistor of 10 kΩ", "assumed"),
        "dac.bits": Source("on-chip converters published, their bits not in the abstract", "assumed"),
        "adc.bits": Source("on-chip converters published, their bits not in the abstract", "assumed"),
    },
)

PKU2019 = Chip(
    name="pku2019",
    title="The first one-step solver: 3×3 crosspoint array, no converters, one shot a few per cent off.",
    tile_size=3,
    cell=Cell(programming_error=0.01, conductance_max=100e-6),
    writing=_RRAM_WRITING,
    sources={
        **_COMMON,
        **_RRAM_WRITTEN,
        "tile_size": Source("3×3 array; Sun et al., PNAS 116:4123 (2019). Too small for a PDE: -analog_tile_size 64 "
                            "asks what its cells would do on a larger one", "second-hand"),
        "cell.programming_error": Source(f"the single shot is quoted with about 1 % error ({_INTERVIEW}); all of it is "
                                         "given to the cells, which were tuned one by one", "assumed"),
        "cell.conductance_max": Source("HfO2 cells tuned to about 100 µS", "assumed"),
    },
)

PKU2025_16 = dataclasses.replace(
    PKU2025, name="pku2025-16", title="The Peking University chip as demonstrated: matrices of 16×16.", tile_size=16,
    sources={**PKU2025.sources, "tile_size": Source(
        f"16×16 by two-stage BlockAMC on arrays of 8×8 (-analog_tile_size 8 -analog_blockamc 1); {_PKU}", "published")},
)

RRAM512 = dataclasses.replace(
    RRAM128, name="rram512", title="The size that the authors of the 2025 paper plan after 128: 512×512.",
    tile_size=512,
    cell=dataclasses.replace(RRAM128.cell, bits=6, programming_error=0.005),
    dac=Converter(bits=8), adc=Converter(bits=10),
    sources={
        **RRAM128.sources,
        "tile_size": Source(f"planned after 128×128; {_INTERVIEW}", "published"),
        "cell.bits": Source("64 levels: tiles of this size are lost to rounding with fewer", "assumed"),
        "cell.programming_error": Source("verify loop twice as tight as on rram128; CMO/HfOx with a 0.2 % window is "
                                         "tighter (aihwkit ReRamCMONoiseModel)", "assumed"),
        "dac.bits": Source("as sram64: 8-bit DACs are common on chip", "assumed"),
        "adc.bits": Source("output errors grow with the tile's condition, hence 10-bit SAR", "assumed"),
    },
)

PCM = Chip(
    name="pcm",
    title="Phase-change memory: errors that depend on the level, and conductances that drift.",
    tile_size=256,
    cell=Cell(bits=4, programming_model="joshi2020", read_noise=0.0088, conductance_max=25e-6),
    dac=Converter(bits=8),
    adc=Converter(bits=8),
    drift=Drift(start=20.0, exponent=0.049, spread=0.010),
    writing=Writing(step=0.25, spread=0.05),
    sources={
        **_COMMON,
        "writing.step": Source("iterative programming reaches most levels in a few partial pulses", "assumed"),
        "writing.spread": Source("about the programming error of a single pulse, 4–8 % (aihwkit PCMLikeNoiseModel "
                                 "gives what is left after the loop)", "assumed"),
        "tile_size": Source("256×256, the arrays of IBM's PCM chips (Le Gallo et al., Nature Electronics 2023)",
                            "second-hand"),
        "cell.bits": Source("16 levels; PCM cells are programmed iteratively to any conductance", "assumed"),
        "cell.programming_model": Source(MODELS["joshi2020"].source, "published"),
        "cell.read_noise": Source("1/f noise with Q = 0.0088 at the largest conductance; grows with √ln t, to 4 % in a "
                                  "day, which is not modelled (aihwkit PCMLikeNoiseModel)", "published"),
        "cell.conductance_max": Source("25 µS; aihwkit PCMLikeNoiseModel", "published"),
        "drift.start": Source("t0 = 20 s; Joshi et al. 2020, aihwkit PCMLikeNoiseModel", "published"),
        "drift.exponent": Source("ν = 0.049 for cells above a fifth of the largest conductance, up to 0.1 below "
                                 "(aihwkit PCMLikeNoiseModel)", "published"),
        "drift.spread": Source("0.008 at the largest conductance, 0.014 at a fifth of it (aihwkit PCMLikeNoiseModel)",
                               "published"),
        "dac.bits": Source("8-bit converters, common training preset of aihwkit", "second-hand"),
        "adc.bits": Source("8-bit converters, common training preset of aihwkit", "second-hand"),
    },
)

MRAM = Chip(
    name="mram",
    title="Magnetic memory: two states a cell, so four cells in parallel; a small window, but no drift.",
    tile_size=128,
    cell=Cell(bits=1, slices=4, programming_model="polynomial", programming_polynomial=(0.0, 0.04), read_noise=0.002,
              conductance_max=200e-6, conductance_min=80e-6),
    dac=Converter(bits=6),
    adc=Converter(bits=8),
    sources={
        **_COMMON,
        "tile_size": Source("array size common to published macros", "assumed"),
        "cell.bits": Source("parallel and antiparallel: two states", "published"),
        "cell.level_spacing": Source("no account of a chip says; verify loops are mostly set to equal distances",
                                 "assumed"),
    "cell.slices": Source("four binary cells make the 16 levels of rram128", "assumed"),
        "cell.programming_model": Source("error in proportion to the cell's own conductance, for there is no verify "
                                         "loop: geometry scatters", "assumed"),
        "cell.programming_polynomial": Source("resistances scatter by 3–5 %", "assumed"),
        "cell.read_noise": Source("magnetic and thermal noise, below that of filaments", "assumed"),
        "cell.conductance_max": Source("5 kΩ in the parallel state; 5–10 kΩ are usual", "assumed"),
        "cell.conductance_min": Source("tunnel magnetoresistance of 150 %; 100–200 % are usual", "assumed"),
        "dac.bits": Source("as rram128: input errors are not amplified", "assumed"),
        "adc.bits": Source("as rram128: 8-bit SAR", "assumed"),
    },
)

FEFET = Chip(
    name="fefet",
    title="Ferroelectric transistors: a few bits, large on/off ratio, wide scatter of thresholds.",
    tile_size=128,
    cell=Cell(bits=3, programming_error=0.03, read_noise=0.005, conductance_max=10e-6, conductance_min=0.2e-6),
    dac=Converter(bits=6),
    adc=Converter(bits=8),
    drift=Drift(relaxation=0.001),
    writing=Writing(step=0.1, spread=0.05),
    sources={
        **_COMMON,
        "writing.step": Source("ten pulses over the window, as amplitude staircases have", "assumed"),
        "writing.spread": Source("5 % cycle to cycle, the AlOx/HfO2 cells of MELISO+'s device files; none for FeFETs",
                                 "assumed"),
        "tile_size": Source("array size common to published macros", "assumed"),
        "cell.bits": Source("1–5 bits are reported; 3 taken", "assumed"),
        "cell.programming_error": Source("thresholds scatter by 50–100 mV; 3 % after a verify loop taken", "assumed"),
        "cell.read_noise": Source("as rram128, averaged reads", "assumed"),
        "cell.conductance_max": Source("10 µS: low currents are what these cells are for", "assumed"),
        "cell.conductance_min": Source("on/off ratio of 50 with analog pulses; 10–50 are usual", "assumed"),
        "drift.relaxation": Source("loss of retention: 1.7 % of the window in a year taken", "assumed"),
        "dac.bits": Source("as rram128: input errors are not amplified", "assumed"),
        "adc.bits": Source("as rram128: 8-bit SAR", "assumed"),
    },
)

PRESETS: dict[str, Chip] = {chip.name: chip for chip in (
    IDEAL, PKU2019, PKU2025, PKU2025_16, RRAM128, RRAM512, SRAM64, PCM, MRAM, FEFET)}


def load(name_or_path: str) -> Chip:
    """Return a preset by name, or the chip that a JSON file describes.

    Args:
        name_or_path: a preset's name, or a path that ends in .json.

    Raises:
        InvalidInput: neither a preset nor a JSON file, or a wrong field in the file.
        AnalogError: the file cannot be read or is not JSON.
    """
    if name_or_path in PRESETS:
        return PRESETS[name_or_path]
    if name_or_path.lower().endswith(".json") or os.path.exists(name_or_path):  # a folder gets the system's message
        if not os.path.lexists(name_or_path):
            raise InvalidInput("-analog_chip", name_or_path, "a file that exists, or " + " | ".join(PRESETS),
                               did_you_mean(name_or_path.lower().removesuffix(".json"), PRESETS))
        return Chip.read(name_or_path)
    raise InvalidInput("-analog_chip", name_or_path, " | ".join(PRESETS) + " | FILE.json",
                       did_you_mean(name_or_path.lower(), PRESETS))
