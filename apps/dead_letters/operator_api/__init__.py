"""Failure groups, dead letters, bulk operations, alerts and the audit for the operators' scripts, below /ops/api/."""
