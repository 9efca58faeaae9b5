"""Subjects of a run: selection, folders, names, and invalid requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_study import make_brain

from harness.brains.load import load_brain
from harness.commands.brains import look
from harness.config.brain import (
    ArraysConfig,
    NsdConfig,
    SimulatedConfig,
    one_by_one,
)
from harness.config.compose import (
    config_hash,
    flatten,
    load_config,
    read_config,
    to_yaml,
)
from harness.runs import subjects
from harness.runs.layout import run_name
from harness.runs.subjects import (
    Brains,
    label_subjects,
    list_subjects,
    name_of_subject,
)
from harness.storage.errors import InputError

NSD = ["brain=nsd", "brain.root=/data/nsd"]
ARRAYS = ["brain=arrays", "brain.root=/data/mine"]


def test_one_subject_has_the_folder_of_the_run() -> None:
    for config in (SimulatedConfig(seed=3), SimulatedConfig(subjects=(3,))):
        (subject,) = list_subjects(config, Path("run"))
        assert (subject.label, subject.folder) == (None, Path("run"))
        assert subject.brain == SimulatedConfig(seed=3)


def test_several_have_a_folder_each() -> None:
    found = list_subjects(load_config([*NSD, "brain.subjects=[5,2]"]).brain, Path("run"))
    assert [subject.label for subject in found] == ["subj05", "subj02"]
    assert [subject.folder for subject in found] == [Path("run/subjects/subj05"), Path("run/subjects/subj02")]
    assert [subject.brain for subject in found] == [
        NsdConfig(root="/data/nsd", subject=number) for number in (5, 2)
    ]


def test_what_tells_subjects_apart_is_a_number_a_seed_or_a_place_below_root() -> None:
    simulated = SimulatedConfig(subjects=(0, 12), n_voxels=100)
    assert label_subjects(simulated) == ("subj00", "subj12")
    assert [one.seed for one in one_by_one(simulated)] == [0, 12]
    assert all(one.n_voxels == 100 and one.subjects is None for one in one_by_one(simulated))
    arrays = ArraysConfig(root="/data/mine", subjects=("m1.npz", "m2"))
    assert label_subjects(arrays) == ("m1.npz", "m2")
    assert [one.root for one in one_by_one(arrays)] == ["/data/mine/m1.npz", "/data/mine/m2"]
    maps = load_config(["brain=grayordinates", "brain.root=/maps", "brain.subjects=[a,b]", "brain.images=/x"])
    assert [(one.root, one.images) for one in one_by_one(maps.brain)] == [
        ("/maps/a", "/x"),
        ("/maps/b", "/x"),
    ]
    algonauts = load_config(["brain=algonauts2023", "brain.root=/alg23", "brain.subjects=[1,8]"])
    assert [one.subject for one in one_by_one(algonauts.brain)] == [1, 8]


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ([*NSD, "brain.subjects=[1,2]", "brain.subject=1"], ["brain: found subject 1 and subjects [1, 2]"]),
        (["brain.subjects=[0,1]", "brain.seed=0"], ["brain: found seed 0 and subjects [0, 1]"]),
        ([*NSD, "brain.subjects=[1,2,1]"], ["brain.subjects: found [1, 2, 1]", "each subject once"]),
        ([*NSD, "brain.subjects=[1,9]"], ["brain.subjects.1: found 9", "less than or equal to 8"]),
        ([*NSD, "brain.subjects=[]"], ["brain.subjects", "at least 1"]),
        ([*NSD, "brain.subjects=[subj01]"], ["brain.subjects", '"subj01"', "integer"]),
        ([*ARRAYS, "brain.subjects=[a,all]"], ["brain.subjects: found all"]),
        ([*ARRAYS, "brain.subjects=[a/b,c]"], ["brain.subjects.0", '"a/b"']),
    ],
)
def test_what_cannot_be_asked_for(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        load_config(overrides)
    for part in parts:
        assert part in str(raised.value)


def test_several_subjects_are_written_and_read_again(tmp_path: Path) -> None:
    config = load_config([*NSD, "brain.subjects=[1,2]"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_config(tmp_path / "config.yaml") == config
    # `brain.subject` is unused here; if written, it would be read as given
    assert "brain.subject" not in flatten(config) and flatten(config)["brain.subjects"] == "[1, 2]"


def test_runs_of_one_subject_keep_their_names() -> None:
    one = load_config([*NSD, "brain.subject=2"])
    # of the version that did not know several subjects
    assert config_hash(one) == "fcd9e15f84ae9ace75dd872100fd1d715367c105367f414bb7142d96878dc0b7"
    assert run_name(load_config([*NSD, "brain.subjects=[2]"])) == run_name(one)
    assert run_name(load_config([*NSD, "brain.subjects=[2,1]"])) != run_name(one)


def test_a_metric_of_one_subject() -> None:
    assert name_of_subject("rewiring/V1/wasserstein_p", "subj01") == "rewiring/V1/subj01/wasserstein_p"


def test_one_brain_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(config: SimulatedConfig) -> object:
        loaded.append(config.seed)
        return replace(make_brain(), fingerprint=f"brain {config.seed}", fingerprints={"a": f"{config.seed}"})

    monkeypatch.setattr(subjects, "load_brain", load)
    brains = Brains(list_subjects(SimulatedConfig(subjects=(4, 6)), tmp_path))
    found = brains.fingerprint()
    about = found.pop("brain_description")
    assert about.keys() == {"subj04", "subj06"} and len(set(about.values())) == 1
    assert found == {
        "brain": {"subj04": "brain 4", "subj06": "brain 6"},
        "brain_files": {"subj04": {"a": "4"}, "subj06": {"a": "6"}},
    }
    four, six = brains.subjects
    assert brains.load(six).fingerprint == brains.load(six).fingerprint == "brain 6"
    assert brains.load(four).fingerprint == "brain 4"
    assert loaded == [4, 6, 4]
    (one,) = list_subjects(SimulatedConfig(seed=5), tmp_path)
    found = Brains([one]).fingerprint()
    assert found.pop("brain_description") == about["subj04"]
    assert found == {"brain": "brain 5", "brain_files": {"a": "5"}}


def test_what_results_depend_on_besides_responses_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brain = replace(make_brain(), fingerprint="the same", n_repeats=np.array([1]))
    first, second, *others = brain.rois
    fewer = replace(first, voxels=first.voxels[1:])
    changed = [
        brain,
        replace(brain, rois=(fewer, second, *others)),
        replace(brain, rois=(replace(first, rank=None), second, *others)),
        replace(brain, rois=(replace(first, name="other"), second, *others)),
        replace(brain, noise_ceiling=np.full(brain.n_voxels, 0.123, np.float32)),
        replace(brain, n_repeats=np.array([2])),
        replace(brain, n_repeats=None, session=np.array([1])),
        replace(brain, shared=np.array([True])),
        replace(brain, bounding_box=brain.bounding_box + 1),
    ]
    found = []
    for one in changed:
        monkeypatch.setattr(subjects, "load_brain", lambda config, one=one: one)
        found.append(Brains(list_subjects(SimulatedConfig(), tmp_path)).fingerprint()["brain_description"])
    assert len(set(found)) == len(changed)


def test_a_brain_is_of_one_subject() -> None:
    with pytest.raises(InputError, match=r"brain\.subjects: found \[0, 1\], expected one"):
        load_brain(SimulatedConfig(subjects=(0, 1)))


def test_a_subject_that_is_not_there_is_named(tmp_path: Path) -> None:
    def save(folder: Path) -> None:
        folder.mkdir()
        np.save(folder / "responses.npy", np.zeros((1, 1)))

    save(tmp_path / "one")
    for subject in list_subjects(ArraysConfig(root=str(tmp_path), subjects=("one", "two")), tmp_path)[1:]:
        with pytest.raises(InputError, match=rf"{tmp_path}/two: no such file or folder"):
            load_brain(subject.brain)


def test_a_look_at_every_subject(tmp_path: Path) -> None:
    small = [f"runs_dir={tmp_path}", "brain.n_voxels=100", "brain.n_stimuli=20", "backbone=mini_random"]
    found = look(load_config([*small, "brain.subjects=[0,1]"]))
    assert [text for label, text in found if label == "brain"] == ["simulated-0", "simulated-1"]
    pictures = [Path(text) for label, text in found if label == "picture"]
    assert [path.name for path in pictures] == ["simulated-0.png", "simulated-1.png"]
    assert all(path.exists() for path in pictures)
