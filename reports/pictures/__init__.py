"""Pictures of reports: plots, contact sheets, and their colours."""
