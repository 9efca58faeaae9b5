"""Settings that make a run small enough for a test."""

TINY = [
    "backbone=mini_random",
    "task.n_train=24",
    "task.n_test=10",
    "finetune.epochs=3",
    "finetune.batch_size=8",
    "finetune.lr=1e-3",
    "snapshots.ratio=2",
    "snapshots.resume_every=2",
]
SMALL_TRACKING = [
    "brain.n_voxels=100",
    "brain.n_stimuli=20",
    "mapping.steps=4",
    "mapping.floor_refits=2",
    "mapping.n_channels=4",
    "probes.tasks=[shapes]",
    "probes.n_train=24",
    "probes.n_test=12",
    "probes.steps=5",
]
