"""Numbers from stored rows: means, intervals, claims, and the belief that metrics deserve."""
