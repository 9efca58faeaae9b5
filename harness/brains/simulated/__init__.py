"""The simulated subject: HCP cortex, known tuning, known noise ceiling."""
