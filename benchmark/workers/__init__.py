"""Processes that do the work of a run, on this machine or a cluster, and what each of them loads."""
