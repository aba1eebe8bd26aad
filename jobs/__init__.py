"""One verb a file: argv in, exit code out, progress on stderr, one JSON report as the last line on stdout."""
