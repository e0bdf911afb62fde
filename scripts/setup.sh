#!/bin/sh
# Make .venv ready:  sh scripts/setup.sh EXTRA…   with the extras of pyproject.toml: plots test lint docs
# Does nothing, in well under a second, if the last complete run left everything as it is wanted.
# PYTHON=… in the environment names the interpreter to use; otherwise a Python >= 3.12 is looked for.
set -eu
cd "$(dirname "$0")/.."
venv=.venv
ready=$venv/.analogpde-ready # line 1: what it was made from; then one extra a line
busy=$venv/.analogpde-busy   # there while an installation is under way, or was interrupted

say() { printf 'setup: %s\n' "$*"; }
stop() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# A moved or copied folder changes pwd and a changed pyproject.toml its checksum.
key="$(cksum <pyproject.toml) $(pwd -P)"

runs() { [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; }

is_ready() {
    [ -f "$ready" ] && [ ! -e "$busy" ] && [ "$(head -n 1 "$ready")" = "$key" ] || return 1
    for extra in "$@"; do grep -qx "$extra" "$ready" || return 1; done
    runs
}

# May what is there be added to? A half-made, moved or broken environment is made anew instead.
is_sound() {
    [ -f "$venv/pyvenv.cfg" ] && [ ! -e "$busy" ] && runs || return 1
    if [ -f "$ready" ]; then
        case "$(head -n 1 "$ready")" in *" $(pwd -P)") ;; *) return 1 ;; esac
    else # made by hand: its scripts know where it was made
        grep -qF "$(pwd -P)/$venv" "$venv/bin/activate" 2>/dev/null || return 1
    fi
    "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

# Prints "VERSION LACKS…" for an interpreter: what Debian splits off, and the compiler that it was built with.
probe='
import sys
words = ["%d.%d.%d" % sys.version_info[:3]]
if sys.version_info >= (3, 12):
    import os, shlex, shutil, sysconfig
    from importlib.util import find_spec
    short = "%d.%d" % sys.version_info[:2]
    if not find_spec("ensurepip") or not find_spec("venv"):
        words.append("python" + short + "-venv")
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        words.append("python" + short + "-dev")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if not shutil.which(compiler):
        words.append("gcc" if "gcc" in compiler or compiler == "cc" else os.path.basename(compiler))
print(" ".join(words))
'

# Candidates, best first. Every folder of PATH is asked: a pyenv shim may exist and not run while a good one follows.
candidates() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" || true
        return
    fi
    for name in python3.12 python3.13 python3.14 python3 python; do
        (
            IFS=:
            set -f
            for folder in $PATH; do [ -x "$folder/$name" ] && printf '%s\n' "$folder/$name"; done
            true
        )
    done
    for minor in 12 13 14; do
        for path in "${PYENV_ROOT:-${HOME:-/root}/.pyenv}/versions/3.$minor"*/bin/python3; do
            [ -x "$path" ] && printf '%s\n' "$path"
        done
    done
    true
}

# Sets `python`, or stops with one message about everything that is missing.
find_python() {
    python= lacking= seen=
    list=$(candidates)
    while IFS= read -r path; do
        [ -n "$path" ] || continue
        answer=$("$path" -c "$probe" </dev/null 2>/dev/null) || continue
        version=${answer%% *}
        case "$version" in
        3.1[2-9].* | 3.[2-9][0-9].*) ;;
        [0-9]*)
            case "$seen" in *"$version at"*) ;; *) seen="$seen${seen:+, }$version at $path" ;; esac
            continue
            ;;
        *) continue ;;
        esac
        if [ "$answer" = "$version" ]; then
            python=$path
            return
        fi
        [ -n "$lacking" ] || lacking="$path is Python $version, but something beside it is missing. Install it, then run this again: apt-get install ${answer#* }"
    done <<END
$list
END
    [ -z "$lacking" ] || stop "$lacking"
    needs="python3 python3-venv python3-dev"
    command -v gcc >/dev/null || needs="$needs gcc"
    stop "no Python 3.12 or newer found${PYTHON:+ at $PYTHON}${seen:+ (only $seen)}." \
        "On Debian 13 or Ubuntu 24.04 and later: apt-get install $needs" \
        "On older systems: pyenv install 3.12 (it is found without being activated), or PYTHON=/path/to/python make …"
}

# Is there a FEniCSx beside this Python (conda-forge, a distribution, source) that we can use?
has_fenicsx() {
    "$1" -c '
import dolfinx, numpy
from petsc4py import PETSc
assert PETSc.ScalarType == numpy.float64 and tuple(map(int, dolfinx.__version__.split(".")[:2])) >= (0, 10)
' >/dev/null 2>&1
}

has_wheel() { [ "$(uname -s) $(uname -m)" = "Linux x86_64" ]; }

make_venv() {
    find_python
    rm -rf "$venv"
    mkdir "$venv"
    : >"$busy"
    site=
    if has_fenicsx "$python"; then
        say "$python has a FEniCSx of its own: using that."
        site=--system-site-packages
    elif ! has_wheel; then
        rm -rf "$venv"
        stop "FEniCSx is missing, and there is no wheel of it for $(uname -s) $(uname -m)." \
            "Install one, for example: conda install -c conda-forge fenics-dolfinx 'petsc=*=real*', then run this again."
    fi
    say "making $venv with $python ($("$python" -V 2>&1))"
    "$python" -m venv $site "$venv" || stop "$python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"
}

is_ready "$@" && exit 0
[ -w . ] || stop "this folder ($(pwd)) cannot be written by $(id -un): copy it to one that can."
# One at a time: `make demo` and `make test` started together share .venv.
exec 9<pyproject.toml
command -v flock >/dev/null && { flock -n 9 || { say "another set-up is at work here: waiting for it"; flock 9; }; }
is_ready "$@" && exit 0

extras=$*
if is_sound; then
    [ -w "$venv" ] || stop "$venv belongs to somebody else: remove it, or have its owner run this."
    [ ! -f "$ready" ] || extras=$(printf '%s\n' "$@" $(tail -n +2 "$ready") | sort -u | tr '\n' ' ')
    : >"$busy"
else
    make_venv
fi
"$venv/bin/python" -c 'from importlib.util import find_spec; assert find_spec("dolfinx")' 2>/dev/null || extras="$extras fenicsx"
wanted=$(printf '%s' "$extras" | tr -s ' ' '\n' | sort -u | paste -sd , -)
case ",$wanted," in
*,fenicsx,*) [ -f "$ready" ] && hint= || hint=": about 250 MB to download, one to three minutes" ;;
*) hint= ;;
esac
say "installing analogpde[$wanted]$hint"
rm -f "$ready"
log=$venv/setup.log
if ! "$venv/bin/python" -m pip install --disable-pip-version-check -e ".[$wanted]" >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    stop "the installation failed; the lines above are the end of $log." \
        "Most often the network: check that this works: $venv/bin/python -m pip download --no-deps jinja2"
fi
say "compiling the tile kernels, once"
OMP_NUM_THREADS=1 "$venv/bin/python" problems/poisson.py -n 24 -analog_chip pku2025 -out none >>"$log" 2>&1 ||
    say "that did not work (see $log); they are compiled at their first use."
{
    printf '%s\n' "$key"
    printf '%s\n' "$wanted" | tr , '\n'
} >"$ready"
rm -f "$busy"
say "done: $venv is ready (log in $log)."
