"""The simulated subject: HCP cortex with known tuning and known noise ceilings."""
