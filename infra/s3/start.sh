#!/usr/bin/env bash
# A throw-away S3 server: one Ceph monitor, one OSD on a sparse file, one RADOS Gateway, all on 127.0.0.1, no systemd, no root.
#   DATA_DIR=./.s3data PORT=7480 infra/s3/start.sh      # idempotent: starts whatever does not run
# In:  DATA_DIR; PORT of S3; MON_PORT of the monitor (PORT + 1); WATCH_PID: stop and wipe by itself once that process has ended.
# Out: DATA_DIR with configuration, keys, data, logs, pids and env.sh (`source` it: AWS_*). Exit 69: packages are missing.
set -euo pipefail
DATA_DIR=${DATA_DIR:-./.s3data}
PORT=${PORT:-7480}
MON_PORT=${MON_PORT:-$((PORT + 1))}
ACCESS_KEY=testkey123
SECRET_KEY=testsecret123
WAIT_S=90
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/daemons.sh"

missing=()
for pair in ceph-mon:ceph-mon ceph-osd:ceph-osd radosgw:radosgw radosgw-admin:radosgw ceph:ceph-common monmaptool:ceph-common; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "start.sh: install $(printf '%s\n' "${missing[@]}" | sort -u | paste -sd ' ') (see infra/s3/README.md)" >&2
  exit 69
fi

mkdir -p "$DATA_DIR"
use_data_dir
mkdir -p "$D"/{mon,osd,log,run}
umask 077

port_busy() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
port_free() { local i; for ((i = 0; i < 20; i++)); do port_busy "$1" || return 0; sleep 0.1; done; return 1; }
answers() { exec 3<>"/dev/tcp/127.0.0.1/$PORT" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && read -r -t 5 <&3; }  # in a subshell
s3_answers() { (answers) 2>/dev/null; }
ceph_() { ceph -c "$C" --connect-timeout 10 "$@"; }
osd_up() { ceph_ osd stat -f json | grep -q '"num_up_osds":1'; }

launch() {  # NAME COMMAND...: detached, in the foreground mode of the daemon, its pid recorded by us, the lock not inherited
  local name=$1; shift
  setsid "$@" </dev/null >>"$D/log/$name.out" 2>&1 9>&- &
  echo $! >"$D/run/$name.pid"
}
ready() {  # NAME WHAT PROBE...
  local name=$1 what=$2 i; shift 2
  for ((i = 0; i < WAIT_S * 5; i++)); do
    "$@" >/dev/null 2>&1 && return
    alive "$name" || { tail -5 "$D/log/$name.out" >&2; die "$name died before: $what (see $D/log)"; }
    sleep 0.2
  done
  die "$name: no $what within $WAIT_S s (see $D/log)"
}
once() {  # STAMP COMMAND...: runs the command unless it has succeeded before (`set -e` does not reach into it: chain with &&)
  local stamp=$1; shift
  [ -f "$D/$stamp" ] && return
  "$@" >"$D/log/$stamp.out" 2>&1 || { tail -5 "$D/log/$stamp.out" >&2; die "$stamp failed"; }
  touch "$D/$stamp"
}

# ---- the cluster's identity: an existing one keeps its monitor port
[ -f "$D/params" ] || printf 'MON_PORT=%q\nFSID=%q\n' "$MON_PORT" "$(cat /proc/sys/kernel/random/uuid)" >"$D/params"
. "$D/params"
if [ -n "${WATCH_PID:-}" ]; then  # from before the first daemon, so that a start that is itself killed leaves nothing either
  watch() { while running "$WATCH_PID" && [ -f "$D/params" ]; do sleep 1; done; DATA_DIR=$D WIPE=1 "$HERE/stop.sh"; }
  export -f watch running state
  D=$D HERE=$HERE WATCH_PID=$WATCH_PID setsid bash -c watch </dev/null >/dev/null 2>&1 9>&- &
fi
for name in mon osd rgw; do  # what a kill -9 has left holds ports and locks for a moment
  pid=$(pid_of "$name") && [ -n "$pid" ] && ! running "$pid" && { wait_ended "$pid" 10 || true; }
done
alive mon || port_free "$MON_PORT" || die "port $MON_PORT (monitor) is in use by something else"
if alive rgw; then
  [ "$(cat "$D/run/rgw.port")" = "$PORT" ] || die "already running on port $(cat "$D/run/rgw.port"); stop.sh first"
else
  port_free "$PORT" || die "port $PORT (S3) is in use by something else"
fi

cat >"$C" <<CONF
[global]
fsid = $FSID
mon host = [v1:127.0.0.1:$MON_PORT]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind port min = 16800
ms bind port max = 17300
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $D/keyring
admin socket = $D/run/\$name.asok
run dir = $D/run
crash dir = $D/run
log file = $D/log/\$name.log
mon cluster log file = $D/log/cluster.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon max pg per osd = 1000
mon data avail warn = 2
mon data avail crit = 1
mon osd full ratio = 0.97
mon osd nearfull ratio = 0.95
mon osd backfillfull ratio = 0.96
[mon]
mon data = $D/mon
paxos propose interval = 0.05
paxos min wait = 0.01
[osd]
osd data = $D/osd
osd objectstore = bluestore
osd memory target = 1073741824
osd class update on start = false
bluestore block create = true
bluestore block size = 10737418240
bluestore block db create = false
bluestore block wal create = false
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$PORT
rgw thread pool size = 64
rgw run sync thread = false
rgw enable usage log = false
rgw enable ops log = false
rgw relaxed region enforcement = true
CONF

# ---- monitor
key() { ceph-authtool "$D/keyring" --gen-key "$@"; }
make_keys_and_monitor() {
  rm -rf "$D/mon" "$D/keyring" && mkdir "$D/mon" &&
  key --create-keyring -n mon. --cap mon 'allow *' &&
  key -n client.admin --cap mon 'allow *' --cap osd 'allow *' &&
  key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' &&
  key -n client.rgw --cap mon 'allow rw' --cap osd 'allow rwx' &&
  monmaptool --create --clobber --fsid "$FSID" --addv a "[v1:127.0.0.1:$MON_PORT]" "$D/monmap" &&
  ceph-mon -c "$C" -i a --mkfs --monmap "$D/monmap" --keyring "$D/keyring"
}
once mon-made make_keys_and_monitor
alive mon || launch mon ceph-mon -c "$C" -i a -f
ready mon quorum ceph_ mon stat

# ---- one OSD: bluestore on a sparse file of 10 GiB
make_osd() {
  local uuid
  uuid=$(cat /proc/sys/kernel/random/uuid) && rm -rf "$D/osd" && mkdir "$D/osd" &&
  ceph_ config set mon auth_allow_insecure_global_id_reclaim false &&
  ceph_ osd new "$uuid" 0 &&
  ceph-osd -c "$C" -i 0 --mkfs --osd-uuid "$uuid"
}
once osd-made make_osd
if ! alive osd; then
  ceph_ osd down 0 >/dev/null 2>&1 || true  # forget an "up" that a kill -9 has left
  launch osd ceph-osd -c "$C" -i 0 -f
fi
ready osd "OSD up" osd_up

# ---- the user, then the gateway
make_user() {
  timeout "$WAIT_S" radosgw-admin -c "$C" -n client.rgw user create --uid=test --display-name=test \
    --access-key="$ACCESS_KEY" --secret-key="$SECRET_KEY"
}
once user-made make_user
alive rgw || launch rgw radosgw -c "$C" -n client.rgw -f
echo "$PORT" >"$D/run/rgw.port"
ready rgw "S3 answer" s3_answers

cat >"$D/env.sh" <<ENV
export AWS_ENDPOINT_URL=http://127.0.0.1:$PORT AWS_ACCESS_KEY_ID=$ACCESS_KEY AWS_SECRET_ACCESS_KEY=$SECRET_KEY
export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
# This gateway is older than the trailing checksums of aws-chunked: without these pyarrow's writes get HTTP 411.
export AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_RESPONSE_CHECKSUM_VALIDATION=when_required
ENV

echo "ready http://127.0.0.1:$PORT  (credentials: $D/env.sh)"
