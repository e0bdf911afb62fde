"""`analogpde doctor`: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analogpde import __version__
from analogpde.errors import AnalogError

Status = Literal["ok", "missing", "warning", "optional"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        subject: what was looked for.
        status: ok; missing (required, exit code 1); warning (works, but not well); optional (absent, not required).
        detail: what was found.
        remedy: what to do, empty if nothing.
    """

    subject: str
    status: Status
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.status:8}  {self.subject}: {self.detail}"
        return f"{text}\n          -> {self.remedy}" if self.remedy else text


def doctor() -> int:
    """Check everything and print what was found.

    Returns:
        0 if all that is required is there, else 1.
    """
    print(f"analogpde {__version__} in {Path(__file__).parent}\n")
    findings = examine()
    for finding in findings:
        print(finding)
    missing = [finding.subject for finding in findings if finding.status == "missing"]
    print("\n" + ("Missing: " + ", ".join(missing) + "." if missing else "All that is required is there."))
    return 1 if missing else 0


def examine() -> list[Finding]:
    """Make every check; one that fails in an unexpected way is a finding, not an end."""
    checks: tuple[Callable[[], Iterable[Finding]], ...] = (
        python, libraries, kernels, petsc, dolfinx, mpirun, compiler, form_cache, extras,
    )
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:  # a doctor that dies of the illness is of no use
            findings.append(Finding(check.__name__, "warning", f"the check itself failed: {error!r}"))
    return findings


def python() -> Iterable[Finding]:
    """The interpreter."""
    version = platform.python_version()
    if sys.hexversion >= 0x030C00F0:
        yield Finding("Python", "ok", f"{version} at {sys.executable}")
    else:
        yield Finding("Python", "missing", f"{version} at {sys.executable}", "Install Python 3.12 or newer.")


def libraries() -> Iterable[Finding]:
    """The packages that `pip install analogpde` brings."""
    for name in ("numpy", "scipy", "numba", "jinja2"):
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            yield Finding(name, "missing", str(error), f"{pip()} install {name}")
        else:
            yield Finding(name, "ok", module.__version__)


def kernels() -> Iterable[Finding]:
    """Whether compiled kernels are kept for the next run."""
    from analogpde.compiled import compiled

    def probe(x: float) -> float:
        return x

    try:
        folder = compiled(probe).stats.cache_path  # type: ignore[attr-defined]
    except AttributeError:
        folder = None
    if folder:
        yield Finding("kernel cache", "ok", str(folder))
    else:
        yield Finding("kernel cache", "warning", "no folder can be written: kernels are compiled in every run",
                      "export NUMBA_CACHE_DIR=a folder that you can write")


def petsc() -> Iterable[Finding]:
    """MPI, PETSc and the registration of our types."""
    try:
        from analogpde.petsc.stack import MPI, PETSc
    except AnalogError as error:
        yield Finding("PETSc", "missing", str(error))
        return
    library = MPI.Get_library_version().strip("\0 \n").splitlines()[0]
    yield Finding("MPI", "ok", f"{library} (mpi4py {importlib.metadata.version('mpi4py')})")
    bits = 8 * PETSc.IntType().itemsize
    version = ".".join(str(part) for part in PETSc.Sys.getVersion())
    yield Finding("PETSc", "ok", f"{version}, real FP64, {bits}-bit indices, from {Path(PETSc.__file__).parents[1]}")
    if PETSc.Sys.hasExternalPackage("mumps"):
        yield Finding("direct solver", "ok", "MUMPS, for -verify")
    else:
        yield Finding("direct solver", "optional", "no MUMPS: -verify on several ranks is slow or impossible",
                      "Use a PETSc with MUMPS, as dolfinx-solver-real and conda-forge have.")
    solver = PETSc.KSP().create(MPI.COMM_SELF)
    try:
        solver.setType("analog")
        yield Finding("-ksp_type analog", "ok", f"registered, of type {solver.getType()}")
    except PETSc.Error as error:
        yield Finding("-ksp_type analog", "missing", f"PETSc does not know it after import analogpde.petsc ({error})",
                      "Reinstall analogpde; if that does not help it is a bug: please report this output.")
    finally:
        solver.destroy()


def dolfinx() -> Iterable[Finding]:
    """FEniCSx, which the shipped problems are written in."""
    remedy = "pip install dolfinx-solver-real (Linux x86-64), or conda install -c conda-forge fenics-dolfinx."
    try:
        importlib.import_module("analogpde.petsc.stack")
        module = importlib.import_module("dolfinx")
    except (ImportError, RuntimeError, OSError) as error:
        yield Finding("FEniCSx", "missing", f"import dolfinx: {first_line(error)}", remedy)
        return
    folder = Path(module.__file__ or ".").parent
    detail = f"DOLFINx {module.__version__}, {kind_of_fenicsx(folder)}, in {folder}"
    numbers = tuple(int(word) for word in re.findall(r"\d+", module.__version__)[:2])
    if numbers < (0, 10):
        yield Finding("FEniCSx", "missing", detail + "; 0.10 or newer is required, 0.11 is tested", remedy)
    else:
        yield Finding("FEniCSx", "ok", detail)


def kind_of_fenicsx(folder: Path) -> str:
    """Say where the FEniCSx in `folder` comes from, in words."""
    for name in ("dolfinx-solver-real", "dolfinx-solver-complex"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return f"the wheel {name} {version}"
    if (Path(sys.prefix) / "conda-meta").is_dir():
        return "from conda"
    if str(folder).startswith("/usr/lib"):
        return "from the distribution's packages"
    return "built from source"


def mpirun() -> Iterable[Finding]:
    """The launcher: another MPI's would start P single-rank programs instead of one with P ranks."""
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        yield Finding("mpirun", "missing", "not on PATH", "Install the launcher of the MPI above (pip: mpich).")
        return
    answer = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    launcher = "Open MPI" if "Open MPI" in answer or "OpenRTE" in answer else "MPICH" if "HYDRA" in answer else "?"
    try:
        from analogpde.petsc.stack import MPI
    except AnalogError:
        yield Finding("mpirun", "ok", f"{found} ({launcher})")
        return
    vendor = MPI.get_vendor()[0]
    if {launcher, vendor} == {"Open MPI", "MPICH"}:
        yield Finding("mpirun", "warning", f"{found} is {launcher}'s, the MPI library is {vendor}",
                      f"Use {vendor}'s mpirun, else every process believes to be alone.")
        return
    on_path = shutil.which("mpirun")
    if on_path is None or not os.path.samefile(on_path, found):
        yield Finding("mpirun", "ok", f"{found} ({launcher}); `mpirun` alone is {on_path or 'not on PATH'}",
                      f"Activate the environment, or write the path: {shlex.quote(found)} -n 2 …")
        return
    yield Finding("mpirun", "ok", f"{found} ({launcher})")


def compiler() -> Iterable[Finding]:
    """What DOLFINx compiles finite-element forms with, at run time."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    path = shutil.which(command)
    if path:
        yield Finding("C compiler", "ok", path)
    else:
        yield Finding("C compiler", "missing", f"{command!r} is not on PATH; DOLFINx compiles forms with it",
                      "apt-get install gcc (or export CC=the compiler that you have)")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if header.exists():
        yield Finding("Python headers", "ok", str(header))
    else:
        name = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
        yield Finding("Python headers", "missing", f"no {header}; compiled forms need it", f"apt-get install {name}")


def form_cache() -> Iterable[Finding]:
    """Where DOLFINx keeps compiled forms."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fenics"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        yield Finding("form cache", "missing", f"{folder} cannot be written ({error.strerror}); DOLFINx needs it",
                      "export XDG_CACHE_HOME=a folder that you can write")
    else:
        yield Finding("form cache", "ok", str(folder))


def extras() -> Iterable[Finding]:
    """What is good to have."""
    for name, purpose, extra in (
        ("matplotlib", "pictures and the figures of the HTML report", "plots"),
        ("pytest", "the tests", "test"),
        ("jsonschema", "tests of the JSON report", "test"),
    ):
        if importlib.util.find_spec(name):
            yield Finding(name, "ok", f"{importlib.metadata.version(name)}, for {purpose}")
        else:
            yield Finding(name, "optional", f"absent; for {purpose}", f"{pip()} install {group(extra)}")
    spice = shutil.which("ngspice")
    if spice:
        yield Finding("ngspice", "ok", f"{spice}, for comparing tiles with a circuit simulator")
    else:
        yield Finding("ngspice", "optional", "absent; some tests compare tiles with it", "apt-get install ngspice")


def pip() -> str:
    """Return the pip command of this interpreter."""
    return f"{shlex.quote(sys.executable)} -m pip"


def group(name: str) -> str:
    """Return what pip is told to install for an optional group of packages: from the source tree if this is one."""
    root = Path(__file__).parents[1]
    if (root / "pyproject.toml").exists():
        return "-e " + shlex.quote(f"{root}[{name}]")
    return f"'analogpde[{name}]'"


def first_line(error: BaseException) -> str:
    """Return the first line of the error's message, or its type."""
    return next(iter(str(error).splitlines()), type(error).__name__)
