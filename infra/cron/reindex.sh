#!/usr/bin/env bash
# One nightly run, for cron. In: /etc/bindery/nightly.yaml; /etc/bindery/environment (mode 0600), the credentials, NAME=value a line.
# Out: a report a day in /var/log/bindery; mail from cron, as stderr is shown only if the run did not end well.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
etc=${BINDERY_ETC:-/etc/bindery} logs=${BINDERY_LOGS:-/var/log/bindery}
set -a && . "$etc/environment" && set +a

exec 9>"$logs/lock"
flock -n 9 || exit 0  # last night's run still goes on

for pause_s in 300 900 0; do
  .venv/bin/python -m jobs.reindex --config "$etc/nightly.yaml" --report "$logs/$(date +%F).json" >/dev/null 2>"$logs/last.log"
  code=$?
  [ "$code" = 3 ] && [ "$pause_s" != 0 ] || break  # 3: infrastructure, the same command goes on; the others end the same way again
  sleep "$pause_s"
done
[ "$code" = 0 ] || tail -n 50 "$logs/last.log" >&2
exit "$code"
