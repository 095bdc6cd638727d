#!/usr/bin/env bash
# Sample every worker of a running pipeline at once with py-spy, and the supervisor with them.
#
# Usage: tools/profile.sh [--seconds N] [--native] [--gil] [--dump] RUN_DIR
#
#   --seconds N  how long each of the two recordings takes; 10 by default
#   --native     C and C++ frames too: slower, and wants debug symbols
#   --gil        only what holds the interpreter lock; by default waiting is shown too
#   --dump       print every stack once and record nothing; works on stopped workers too
#
# Writes RUN_DIR/profile/WORKER.svg, a flame graph for a browser, and WORKER.speedscope.json, for
# https://www.speedscope.app (it reads the file in your browser and sends it nowhere).
#
# The two are recorded one after the other, so they show different moments. py-spy writes one format
# per recording and converts none; of two recordings at once each loses a fifth of its samples or
# more, because both want to stop the process (with --nonblocking none is lost, but stacks are read
# while they change). Exit code: 0 all done, 1 something could not be recorded, 2 your mistake.
set -u

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }
say() { printf 'profile.sh: %s\n' "$*" >&2; }
refuse() { say "$@"; exit 2; }

seconds=10 dump='' run_dir='' options=(--threads) idle=(--idle)
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=${2-}; shift ;;
        --seconds=*) seconds=${1#*=} ;;
        --native) options+=(--native) ;;
        --gil) options+=(--gil) idle=() ;;
        --dump) dump=1 ;;
        -h | --help) usage; exit 0 ;;
        -*) refuse "$1: no such option; see --help" ;;
        *) [ -z "$run_dir" ] || refuse "one RUN_DIR, please: $run_dir or $1"; run_dir=$1 ;;
    esac
    shift
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || refuse "--seconds wants a whole number, not '$seconds'"
[ -n "$run_dir" ] || refuse "which run? tools/profile.sh RUN_DIR; see --help"
[ -r "$run_dir/workers.json" ] || refuse "$run_dir: no run directory, or its run has not begun: \
there is no workers.json in it"

# As bin/environment.py looks for its interpreter: the environment somebody chose, ours, the PATH.
find_py_spy() {
    local root
    root=$(cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd) || return
    for py_spy in "${VIRTUAL_ENV:-$root/.venv}/bin/py-spy" "$root/.venv/bin/py-spy"; do
        [ ! -x "$py_spy" ] || return 0
    done
    py_spy=$(command -v py-spy)
}
find_py_spy || refuse "py-spy is neither in .venv nor on PATH; bin/runpipe --help makes .venv, \
or: pip install py-spy"

# Lines of "name pid": the workers that run, then their parent. A pid may be another's by now.
processes() {
    local name pid supervisor=''
    while read -r name pid; do
        if tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "--name $name "; then
            echo "$name $pid"
            supervisor=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null)
        else
            say "$name: pid $pid is gone; the worker has ended"
        fi
    done < <(tr '{},' '\n\n\n' <"$run_dir/workers.json" |
        sed -n 's/^[[:space:]]*"\([^"]*\)":[[:space:]]*\([0-9][0-9]*\)[[:space:]]*$/\1 \2/p')
    [ "${supervisor:-1}" -le 1 ] || echo "supervisor $supervisor"
}
mapfile -t found < <(processes)
[ ${#found[@]} -gt 0 ] || { say "$run_dir: none of its workers runs"; exit 1; }

explain() { # name, pid, what py-spy said
    if [ ! -e "/proc/$2" ]; then
        say "$1: ended meanwhile"
    elif grep -qi 'no stack counts\|no samples' <<<"$3"; then
        say "$1: nothing to show: it never held the interpreter lock"
    else
        say "$1: py-spy failed: $3"
    fi
}

# Without the right to look, one line instead of one for every worker.
if "$py_spy" dump --nonblocking --pid "${found[0]##* }" 2>&1 |
    grep -qi '^\(error: \)\?\(permission denied\|operation not permitted\)'; then
    refuse "not allowed to look into pid ${found[0]##* } (ptrace). Try one of: sudo $0 ...;" \
        "sudo sysctl kernel.yama.ptrace_scope=0;" \
        "if in a container, start it with --cap-add SYS_PTRACE"
fi

# A stopped process cannot be stopped once more to look at it, and need not be.
blocking() { grep -q '^State:[[:space:]]*T' "/proc/$1/status" 2>/dev/null && echo --nonblocking; }

if [ -n "$dump" ]; then
    code=0
    for one in "${found[@]}"; do
        printf '=== %s\n' "$one"
        # shellcheck disable=SC2046 # one word or none
        if out=$("$py_spy" dump $(blocking "${one##* }") --pid "${one##* }" 2>&1); then
            printf '%s\n\n' "$out"
        else
            explain "${one% *}" "${one##* }" "$out"
            code=1
        fi
    done
    exit $code
fi

record() { # name, pid, format, file
    local out
    trap : INT
    # shellcheck disable=SC2046 # one word or none
    if out=$("$py_spy" record $(blocking "$2") --pid "$2" --duration "$seconds" \
        --format "$3" --output "$4" "${options[@]}" "${idle[@]}" 2>&1 </dev/null) && [ -s "$4" ]; then
        echo "$4"
    else
        explain "$1" "$2" "$out"
        return 1
    fi
}

profile=$run_dir/profile
mkdir -p "$profile" || exit 1
code=0
trap 'code=130' INT # py-spy hears it too, and writes what it has; so we wait for it below
say "sampling ${#found[@]} processes, twice $seconds s"
for format in flamegraph:svg speedscope:speedscope.json; do
    pids=()
    for one in "${found[@]}"; do
        name=${one% *}
        record "$name" "${one##* }" "${format%%:*}" "$profile/${name//\//.}.${format#*:}" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || [ $code -ne 0 ] || code=1
    done
    [ $code -ne 130 ] || { wait; break; }
done
exit $code
