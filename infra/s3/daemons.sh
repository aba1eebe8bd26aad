# Shared by start.sh and stop.sh. In: DATA_DIR. Out: D (its absolute path), C (its ceph.conf), functions on the daemons' pid files.
# A pid file counts only while that pid runs, is no zombie, and was started with our configuration: nothing else is ever signalled.

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

use_data_dir() {  # takes the lock: one start or stop at a time
  D=$(cd "$DATA_DIR" && pwd); C=$D/ceph.conf
  exec 9>"$D/.lock"
  flock -w 120 9 || die "another start or stop holds $D/.lock"
}

pid_of() { cat "$D/run/$1.pid" 2>/dev/null; }
state() { local stat; stat=$(cat "/proc/$1/stat" 2>/dev/null) && stat=${stat##*) } && echo "${stat%% *}"; }
running() { case $(state "$1") in ''|Z) return 1 ;; esac; }
threads() { find "/proc/$1/task" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l; }
ours() { running "$1" && tr '\0' '\n' <"/proc/$1/cmdline" 2>/dev/null | grep -qxF -- "$C"; }
alive() { local pid; pid=$(pid_of "$1") && [ -n "$pid" ] && ours "$pid"; }

# A zombie whose threads are all gone has ended too: process 1 of a container may never reap it. A zombie leader with threads has
# not: after a kill -9 they hold the port and the file locks for a moment longer.
ended() { ! running "$1" && [ "$(threads "$1")" -le 1 ]; }
wait_ended() { local i; for ((i = 0; i < $2 * 10; i++)); do ended "$1" && return; sleep 0.1; done; return 1; }
