"""Reports: turn the stored tables of a run into a leaderboard. They read files only, without torch or diffusers."""
