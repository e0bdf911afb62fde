"""Counts of what the emulated machine did."""

from analogpde.cost.ledger import Ledger

__all__ = ["Ledger"]
