"""Counts of what the emulated machine did."""

from analogpde.cost.ledger import Ledger
from analogpde.cost.tiles import TileUse

__all__ = ["Ledger", "TileUse"]
