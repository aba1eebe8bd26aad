"""The entrypoint of a RayJob. In: a command. Out: a Ray job that ends as what KubeRay is to do next.

    python rayjob.py python -m jobs.embed s3://bucket/media --db s3://bucket/index

Neither Ray nor KubeRay knows exit codes: a command that fails is FAILED, and RayJob tries it again, `backoffLimit` times, each
time on a new cluster. That is right for exit code 3 (infrastructure, a signal) and for a command that was killed. It is a waste
of machines for 1 (a gate failed), 2 (bad arguments) and 4 (a bug), which come back the same. So those stop their own job:
STOPPED is an end too, which RayJob does not try again, and which is not SUCCEEDED either.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from ray.job_submission import JobSubmissionClient

FINAL = (1, 2, 4)  # of the exit codes that jobs/config.py lists
DASHBOARD = "http://127.0.0.1:8265"  # entrypoints run on the head
STOP_WAIT_S = 120


def main(command: Sequence[str]) -> int:
    """Run the command, pass its exit code on; after a final one the job is stopped meanwhile."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # Ray signals the command too, which stops by itself, and is waited for
    code = subprocess.call(command)
    if code not in FINAL:
        return code
    submission_id = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"]
    print(f"exit code {code}: the same command would end the same way, so this job stops itself", file=sys.stderr, flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    JobSubmissionClient(os.environ.get("RAY_DASHBOARD", DASHBOARD)).stop_job(submission_id)
    time.sleep(STOP_WAIT_S)  # until Ray ends this process, or else the exit code says it
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
