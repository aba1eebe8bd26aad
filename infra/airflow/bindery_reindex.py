"""Airflow: reindex every night on a Ray cluster that stays. In: its dashboard. Out: a task that fails for good, or tries again.

Needs `ray[default]` of the cluster's version beside Airflow 3, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN in the
environment of its workers, and an Airflow variable `bindery_ray`, the URL of the dashboard. A retry resumes: what is committed
is not embedded again.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from airflow.exceptions import AirflowException, AirflowFailException
from airflow.sdk import Variable, dag, get_current_context, task
from ray.job_submission import JobStatus, JobSubmissionClient

COMMAND = "python -m jobs.reindex --config /etc/bindery/nightly.yaml"
FINAL = (1, 2, 4)  # a gate failed, bad arguments, a bug: another try would end the same way
RUNTIME_ENV = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}


@dag(schedule="17 2 * * *", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1)
def bindery_reindex() -> None:
    """One task: what is new or changed is embedded, what is gone is deleted."""

    @task(retries=3, retry_delay=timedelta(minutes=5), execution_timeout=timedelta(hours=23))
    def reindex() -> str:
        context = get_current_context()
        ray = JobSubmissionClient(Variable.get("bindery_ray"))
        # The submission id is the run's id in the table, too.
        name = f"reindex-{context['ti'].try_number}-{int(time.time())}"
        ray.submit_job(entrypoint=COMMAND, submission_id=name, runtime_env=RUNTIME_ENV)
        try:
            while not (status := ray.get_job_status(name)).is_terminal():
                time.sleep(15)
        except BaseException:  # the task is cleared, killed or out of time: a clean stop, which commits what is staged
            ray.stop_job(name)
            raise
        print(ray.get_job_logs(name)[-20_000:])
        if status is JobStatus.SUCCEEDED:
            return name
        if ray.get_job_info(name).driver_exit_code in FINAL:
            raise AirflowFailException(f"{name} ended for good; its report is the last line of its log")
        raise AirflowException(f"{name} was stopped by infrastructure; the next try goes on")

    reindex()


bindery_reindex()
