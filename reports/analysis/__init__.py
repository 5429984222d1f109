"""From stored rows to numbers: means, intervals, claims, and how far metrics can be believed."""
