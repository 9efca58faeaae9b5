"""What features retain of a task: one module per kind of probe, and `kinds`, the record of all of them."""
