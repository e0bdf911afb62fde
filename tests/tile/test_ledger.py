"""The ledger adds up."""

from dataclasses import fields

from analogpde.cost import Ledger

NAMES = [field.name for field in fields(Ledger)]
ONE = Ledger(**{name: 4**k for k, name in enumerate(NAMES)})
TWO = Ledger(**{name: 7 * 4**k + 1 for k, name in enumerate(NAMES)})


def test_sum_and_difference_field_by_field():
    assert (ONE + TWO).as_dict() == {name: 8 * 4**k + 1 for k, name in enumerate(NAMES)}
    assert ONE + TWO - TWO == ONE


def test_adding_in_place_changes_only_the_left():
    total, before = Ledger(), TWO.as_dict()
    total.add(ONE)
    total.add(TWO)
    assert total == ONE + TWO
    assert TWO.as_dict() == before


def test_new_ledgers_are_empty_and_their_own():
    first = Ledger()
    first.add(ONE)
    assert Ledger() == Ledger(**dict.fromkeys(NAMES, 0))
