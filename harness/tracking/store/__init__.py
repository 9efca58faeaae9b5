"""The MLflow store of runs; only this package imports mlflow.

The journal is the truth and is written first. `TrackedRun` sends its rows while the run goes on, in a thread
of its own, so that a slow server holds nothing up. Sending rows again changes nothing, so a dead server costs
only a warning. Send the rows later with

    palimpsest forward RUN_FOLDER...

A run's metrics in MLflow are the headline metrics of the catalogue, under the names of `keys`; its artifact
``results.parquet`` has every row of the journal.
"""
