"""What the problem scripts share: command line, assemble-once systems, time stepping, output, pictures.

The layer above the plugin. Importing it loads MPI, PETSc and DOLFINx in the order they need.
"""

import sys


def _for_petsc(words: list[str]) -> list[str]:
    """Return the command line that PETSc may read while it starts.

    Kept from it: a script's -help, before which PETSc would print hundreds of lines of its own, and the options of
    analogpde, which the script checks itself, so that a bad value is one line of text and not a failed import.
    """
    kept: list[str] = []
    skipping = False
    for word in words:
        option = word.startswith("-") and word[1:2].isalpha()
        if option:
            skipping = word == "-help" or "analog_" in word
        if not skipping:
            kept.append(word)
    return kept


_words = sys.argv
sys.argv = _for_petsc(_words)
try:
    import analogpde.petsc  # noqa: F401 - before mpi4py, petsc4py and dolfinx
finally:
    sys.argv = _words
