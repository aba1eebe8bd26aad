#!/usr/bin/env bash
# Stop what start.sh started for DATA_DIR, by recorded pid only. WIPE=1 also deletes the data.
set -euo pipefail
DATA_DIR=${DATA_DIR:-./.s3data}
GRACE_S=30
. "$(dirname "${BASH_SOURCE[0]}")/daemons.sh"

[ -d "$DATA_DIR" ] || { echo "stop.sh: nothing at $DATA_DIR"; exit 0; }
[ -f "$DATA_DIR/params" ] || die "$DATA_DIR was not made by start.sh"
use_data_dir

for name in rgw osd mon; do
  if alive "$name"; then
    pid=$(pid_of "$name")
    kill -TERM "$pid"
    if ! wait_ended "$pid" "$GRACE_S"; then
      echo "stop.sh: $name ($pid) ignored TERM for $GRACE_S s; KILL" >&2
      kill -KILL "$pid"
      wait_ended "$pid" 5 || die "$name ($pid) is still there"
    fi
  fi
  rm -f "$D/run/$name.pid"
done
[ "${WIPE:-0}" = 0 ] || rm -rf "$D"
echo "stopped"
