"""Set-up as a stranger's machine meets it: a stand-in Python, no network, a folder with a space in its path."""

import os
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("sh", "dirname", "cksum", "head", "tail", "grep", "id", "rm", "mkdir", "cp", "cat", "tr", "sort", "paste",
         "flock", "env", "make", "printf")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# Answers what scripts/setup.sh asks of an interpreter. VERSION and LACKS come from the environment, so does
# what pip answers; every `pip install` is written down.
STAND_IN = """#!/bin/sh
case "$*" in
*ensurepip*) echo "${VERSION:-3.12.1}${LACKS:+ $LACKS}" ;;
*"import dolfinx, numpy"*) [ -n "${HAS_FENICSX:-}" ] ;;
*'find_spec("dolfinx")'*) [ -n "${HAS_FENICSX:-}" ] ;;
"-m venv"*)
    for folder in "$@"; do :; done
    mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" && echo "made" > "$folder/pyvenv.cfg"
    echo "$*" >> "$LOG" ;;
"-m pip --version") ;;
"-m pip install"*) echo "$*" >> "$LOG"; exit "${PIP:-0}" ;;
-V) echo "Python ${VERSION:-3.12.1}" ;;
*) exit 0 ;;
esac
"""


class Machine:
    """A copy of the set-up script in a folder with a space, and a PATH of our making."""

    def __init__(self, folder):
        self.project = folder / "a project"
        (self.project / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup.sh", self.project / "scripts")
        shutil.copy(ROOT / "pyproject.toml", self.project)
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            if found:
                (self.bin / tool).symlink_to(found)
        self.executable("uname", '#!/bin/sh\n[ "$1" = -s ] && echo Linux || echo "${MACHINE:-x86_64}"\n')
        self.executable("gcc", "#!/bin/sh\n")
        self.home = folder / "home"
        self.home.mkdir()
        self.log = folder / "log"

    def executable(self, name, text, folder=None):
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def python(self, name="python3.12", folder=None):
        return self.executable(name, STAND_IN, folder)

    def setup(self, *extras, **environment):
        env = {"PATH": str(self.bin), "HOME": str(self.home), "LOG": str(self.log), **environment}
        return subprocess.run(["sh", "scripts/setup.sh", *extras], cwd=self.project, env=env, capture_output=True,
                              text=True, timeout=60, check=False)

    def installs(self):
        """What pip was asked to install so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.rsplit(" ", 1)[1] for line in lines if "pip install" in line]

    def environments(self):
        """How many environments were made so far."""
        return sum("-m venv" in line for line in self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


# Looking for Python


def test_without_python_it_stops_and_says_what_to_install(machine):
    done = machine.setup("plots")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no Python 3.12 or newer found" in done.stderr
    assert "apt-get install python3 python3-venv python3-dev\n" in done.stderr
    assert not (machine.project / ".venv").exists()


def test_without_a_compiler_it_is_asked_for_in_the_same_message(machine):
    (machine.bin / "gcc").unlink()
    assert "apt-get install python3 python3-venv python3-dev gcc\n" in machine.setup().stderr


def test_an_old_python_is_named(machine):
    machine.python("python3")
    done = machine.setup(VERSION="3.11.2")
    assert done.returncode == 1
    assert f"(only 3.11.2 at {machine.bin}/python3)" in done.stderr


@pytest.mark.parametrize("lacks", ["python3.12-venv", "python3.12-dev", "gcc", "python3.12-venv python3.12-dev gcc"])
def test_a_python_without_its_other_half_is_told_what_to_install(machine, lacks):
    machine.python()
    done = machine.setup(LACKS=lacks)
    assert done.returncode == 1
    assert f"apt-get install {lacks}\n" in done.stderr
    assert done.stderr.count("setup:") == 1


def test_the_probe_finds_nothing_missing_in_this_python(machine):
    text = (ROOT / "scripts" / "setup.sh").read_text()
    probe = text.split("probe='")[1].split("'\n")[0]
    compile(probe, "probe", "exec")


def test_a_shim_that_does_not_run_is_passed_over(machine):
    machine.executable("python3.12", "#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n")
    machine.python("python3")
    assert machine.setup("plots").returncode == 0
    assert machine.environments() == 1


def test_a_working_python_behind_a_broken_one_of_the_same_name(machine, tmp_path):
    machine.executable("python3.12", "#!/bin/sh\nexit 127\n", tmp_path / "first of path")
    machine.python()
    assert machine.setup(PATH=f"{tmp_path}/first of path:{machine.bin}").returncode == 0


@pytest.mark.parametrize("version", ["3.12.1", "3.13.0", "3.14.2", "3.20.0"])
def test_newer_versions_count(machine, version):
    machine.python("python3")
    assert machine.setup(VERSION=version).returncode == 0


def test_pyenvs_versions_are_looked_into(machine):
    machine.python("python3", machine.home / ".pyenv" / "versions" / "3.12.1" / "bin")
    assert machine.setup("plots").returncode == 0


def test_pyenv_elsewhere(machine, tmp_path):
    machine.python("python3", tmp_path / "my pyenv" / "versions" / "3.13.0" / "bin")
    assert machine.setup(PYENV_ROOT=str(tmp_path / "my pyenv"), VERSION="3.13.0").returncode == 0


def test_python_named_by_the_user(machine, tmp_path):
    chosen = machine.python("my-python", tmp_path / "else where")
    machine.python()
    assert f"making .venv with {chosen} " in machine.setup(PYTHON=str(chosen)).stdout


# What is installed


def test_the_wheel_of_fenicsx_is_installed_where_there_is_none(machine):
    machine.python()
    assert machine.setup("plots").returncode == 0
    assert machine.installs() == [".[fenicsx,plots]"]


def test_a_fenicsx_that_is_there_is_used(machine):
    machine.python()
    done = machine.setup("plots", HAS_FENICSX="yes")
    assert "has a FEniCSx of its own" in done.stdout
    assert machine.installs() == [".[plots]"]
    assert "--system-site-packages" in machine.log.read_text()


def test_no_wheel_for_this_machine_and_no_fenicsx(machine):
    machine.python()
    done = machine.setup("plots", MACHINE="aarch64")
    assert done.returncode == 1
    assert "no wheel of it for Linux aarch64" in done.stderr
    assert "conda-forge" in done.stderr
    assert machine.installs() == []


# Again


def test_the_second_run_does_nothing_and_says_nothing(machine):
    machine.python()
    machine.setup("plots", "test")
    again = machine.setup("plots", "test")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert machine.setup("plots").stdout == ""
    assert len(machine.installs()) == 1


def test_more_extras_are_added_to_what_is_there(machine):
    machine.python()
    machine.setup("plots")
    machine.setup("test", HAS_FENICSX="yes")
    assert machine.installs() == [".[fenicsx,plots]", ".[fenicsx,plots,test]"]
    assert machine.environments() == 1


def test_a_changed_pyproject_installs_again_into_the_same_environment(machine):
    machine.python()
    machine.setup("plots")
    with (machine.project / "pyproject.toml").open("a") as file:
        file.write("\n# changed\n")
    machine.setup("plots")
    assert (len(machine.installs()), machine.environments()) == (2, 1)


def test_a_failed_installation_says_so_and_the_next_run_begins_anew(machine):
    machine.python()
    done = machine.setup("plots", PIP="1")
    assert done.returncode == 1
    assert "the installation failed" in done.stderr
    assert machine.setup("plots").returncode == 0
    assert machine.environments() == 2


def test_an_interrupted_run_begins_anew(machine):
    machine.python()
    machine.setup("plots")
    (machine.project / ".venv" / ".analogpde-busy").touch()
    machine.setup("plots")
    assert machine.environments() == 2


def test_a_moved_folder_gets_a_new_environment(machine, tmp_path):
    machine.python()
    machine.setup("plots")
    machine.project = machine.project.rename(tmp_path / "moved here")
    assert machine.setup("plots").returncode == 0
    assert machine.environments() == 2


def test_a_broken_environment_is_made_anew(machine):
    machine.python()
    machine.setup("plots")
    python = machine.project / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/such/python")
    assert machine.setup("plots").returncode == 0
    assert machine.environments() == 2


def test_an_environment_made_by_hand_is_kept(machine):
    machine.python()
    venv = machine.project / ".venv"
    machine.python("python", venv / "bin")
    (venv / "pyvenv.cfg").write_text("home = somewhere\n")
    (venv / "bin" / "activate").write_text(f'VIRTUAL_ENV="{venv}"\n')
    assert machine.setup("plots").returncode == 0
    assert (machine.installs(), machine.environments()) == ([".[fenicsx,plots]"], 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(machine):
    machine.python()
    machine.project.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        done = machine.setup("plots")
    finally:
        machine.project.chmod(0o755)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr


# The project file and the Makefile


def test_required_dependencies_are_few_and_bring_no_second_petsc():
    names = {entry.split(">")[0].strip() for entry in PROJECT["project"]["dependencies"]}
    assert names == {"numpy", "scipy", "numba", "jinja2"}
    extras = PROJECT["project"]["optional-dependencies"]
    assert {"fenicsx", "plots", "test", "lint", "docs"} <= set(extras)
    everything = " ".join(entry for extra in extras.values() for entry in extra)
    assert "petsc4py" not in everything
    assert "fenics-dolfinx" not in everything


def test_all_package_data_is_inside_the_package():
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["analogpde"]
    assert (ROOT / "analogpde" / "py.typed").exists()
    assert (ROOT / "analogpde" / "report" / "schema.json").exists()


@pytest.mark.parametrize("target", ["help", "setup", "demo", "test", "lint", "docs", "clean"])
def test_make_knows_its_targets(target):
    make = shutil.which("make")
    if make is None:
        pytest.skip("needs make")
    done = subprocess.run([make, "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
