"""Reports: from a run's stored tables to a leaderboard. Reads files only; loads neither torch nor diffusers."""
