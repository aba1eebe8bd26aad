"""One verb a file: argv in, exit code out, progress on stderr, one JSON report as the last line on stdout."""

import os

# Ray reads this when it is imported. Workers' lines that match are not repeated on stderr: Ray Train's notes to itself.
os.environ.setdefault(
    "RAY_DEDUP_LOGS_SKIP_REGEX",
    "Ray Train Controller actor state|Setting up process group|training worker group|world_rank=0, |Reporting training result"
    "|Checkpoint successfully created|exclude_resources|has constructor arguments in the object store|Progress bars disabled"
    "|execution finished in"
    "|Set ray log level|Requesting resources: ",
)
