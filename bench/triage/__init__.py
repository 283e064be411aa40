"""The operators' pages and the clock's chores beside a million dead letters; run as `python -m bench.triage`."""
