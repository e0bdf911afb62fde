"""The kernel decorator: right numbers, and no complaint whatever the disk is like."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from analogpde.compiled import compiled

ROOT = Path(__file__).parents[1]
KERNEL = '''
    from analogpde.compiled import compiled

    @compiled
    def total(values):
        result = 0.0
        for value in values:
            result += value
        return result
'''


@compiled
def reciprocal_sum(values):
    result = 0.0
    for i in range(values.size):
        result += 1.0 / values[i]
    return result


def test_the_compiled_function_and_its_original_agree_to_the_bit():
    values = np.random.default_rng(1).uniform(0.5, 2.0, 1000)
    # The same operations in the same order, IEEE arithmetic, no fastmath: equal, not close.
    assert reciprocal_sum(values) == reciprocal_sum.py_func(values)


def test_division_by_zero_is_infinite_as_in_numpy():
    assert reciprocal_sum(np.array([0.0])) == np.inf


def test_nan_passes_through():
    assert np.isnan(reciprocal_sum(np.array([1.0, np.nan])))


def run_kernel(folder, cache_home, **environment):
    """Call the kernel in `folder` in a new process; return how often the cache served, and where it is."""
    code = "import numpy, kernel; print(kernel.total(numpy.ones(5)), sum(kernel.total.stats.cache_hits.values()), " \
           "kernel.total.stats.cache_path, sep='|')"
    env = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    env |= {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "HOME": str(cache_home), "XDG_CACHE_HOME": str(cache_home),
            "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0, done.stderr
    value, hits, path = done.stdout.strip().split("|")
    assert value == "5.0"
    return int(hits), path


@pytest.fixture
def kernel_folder(tmp_path):
    folder = tmp_path / "package folder"
    folder.mkdir()
    (folder / "kernel.py").write_text(textwrap.dedent(KERNEL))
    return folder


def test_the_second_process_takes_the_code_from_the_cache(kernel_folder, tmp_path):
    first_hits, path = run_kernel(kernel_folder, tmp_path)
    assert (first_hits, Path(path)) == (0, kernel_folder / "__pycache__")
    assert run_kernel(kernel_folder, tmp_path)[0] == 1


def blocked(folder):
    """Make `folder/__pycache__` unusable, for root too: a file stands where the cache folder would be."""
    (folder / "__pycache__").write_text("no folder")


def test_a_package_that_cannot_be_written_uses_the_users_cache(kernel_folder, tmp_path):
    blocked(kernel_folder)
    home = tmp_path / "home"
    home.mkdir()
    _, path = run_kernel(kernel_folder, home)
    assert Path(path).is_relative_to(home)
    assert run_kernel(kernel_folder, home)[0] == 1


def test_without_any_place_for_a_cache_the_kernel_still_runs(kernel_folder, tmp_path):
    blocked(kernel_folder)
    home = tmp_path / "home"
    home.write_text("no folder either")
    hits, path = run_kernel(kernel_folder, home)
    assert (hits, path) == (0, "None")


def test_a_cache_that_fails_later_is_forgiven(kernel_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.syspath_prepend(str(kernel_folder))
    import kernel

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernel.total._cache._cache, "save_overload", full)
    monkeypatch.setattr(kernel.total._cache._cache, "load_overload", full)
    assert kernel.total(np.ones(3)) == 3.0
    del sys.modules["kernel"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_person_is_told_what_the_wait_is_for(monkeypatch, capsys, terminal):
    from analogpde import compiled as module

    module._tell_a_person.cache_clear()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    for _ in range(2):
        compiled(lambda x: x + 1.0)(2.0)  # new each time
    assert capsys.readouterr().err.count("compiling tile kernels, once") == terminal
    module._tell_a_person.cache_clear()
