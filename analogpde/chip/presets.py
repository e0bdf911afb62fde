"""Named chips.

`published` values were read in the named source, `second-hand` ones in a summary of it, `assumed` ones are this
project's plausible choice where nothing was published.
"""

from __future__ import annotations

import os

from analogpde.chip.cell import Cell
from analogpde.chip.chip import Chip, Source
from analogpde.chip.converter import Converter
from analogpde.errors import InvalidInput, did_you_mean

_PKU = "Zuo et al., Nature Electronics 2025, doi:10.1038/s41928-025-01477-0"
_MANNOCCI = ("Mannocci et al., Nature Electronics 2026: two 64×64 SRAM-based arrays, 90 nm CMOS, on-chip op-amps and "
             "converters")

IDEAL = Chip(
    name="ideal",
    title="No error at all: continuous cells, no noise, ideal converters.",
    sources={
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
    sources={
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
    sources={
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
        "tile_size": Source(_MANNOCCI, "published"),
        "cell.bits": Source("bits of the SRAM-switched resistor: not in the abstract, 4 taken", "assumed"),
        "cell.programming_error": Source("resistor mismatch; no write error in SRAM", "assumed"),
        "cell.read_noise": Source("thermal noise of resistors and amplifiers only", "assumed"),
        "cell.conductance_max": Source("integrated poly resistor of 10 kΩ", "assumed"),
        "dac.bits": Source("on-chip converters published, their bits not in the abstract", "assumed"),
        "adc.bits": Source("on-chip converters published, their bits not in the abstract", "assumed"),
    },
)

PRESETS: dict[str, Chip] = {chip.name: chip for chip in (IDEAL, PKU2025, RRAM128, SRAM64)}


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
