"""Reports of ablations, studies and splits of variance."""
