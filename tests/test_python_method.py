"""A user's own method, from a module in the working directory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from made_training import SMALL, train, values
from overrides import SMALL_TRACKING, TINY

from harness.commands.finetune import run
from harness.config.compose import load_config
from harness.finetuning.methods.records import fingerprint_method
from harness.finetuning.snapshots import read_manifest
from harness.runs.layout import snapshot_folder
from harness.storage.errors import InputError
from harness.storage.files import read_json

MODULE = """
from harness.finetuning import Objective


class Scaled(Objective):
    def __init__(self, model, task, factor):
        super().__init__(model, task)
        self.factor = factor

    def forward(self, images, labels):
        return {name: self.factor * term for name, term in super().forward(images, labels).items()}


def build(model, task, backbone, device, factor=1.0):
    assert not any(name.startswith("head") for name, _ in backbone.named_parameters())
    return Scaled(model, task, factor)


def fails(model, task, backbone, device):
    raise RuntimeError("no luck")


def wrong(model, task, backbone, device):
    return 3


number = 3
"""
OWN = ["method=python", "method.function=own_methods:build"]


@pytest.fixture(autouse=True)
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_methods.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_methods", raising=False)


def test_the_objective_is_ones_own_and_all_weights_are_trained(tmp_path: Path) -> None:
    for name, overrides in {
        "full": ["method=full"],
        "same": OWN,
        "scaled": [*OWN, "method.arguments={factor: 2.0}"],
    }.items():
        train(tmp_path / name, *SMALL, *overrides, "finetune.max_steps=2")
    hashes = [read_manifest(snapshot_folder(tmp_path / name, 2)).weights_hash for name in ("full", "same")]
    assert hashes[0] == hashes[1]
    rows = {name: values(tmp_path / name) for name in ("full", "scaled")}
    assert rows["scaled"]["train/loss", 1] == pytest.approx(2 * rows["full"]["train/loss", 1])


def test_the_manifest_has_the_functions_source_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    config = load_config([*TINY, *SMALL_TRACKING, *OWN, "finetune.max_steps=1", f"runs_dir={tmp_path}/runs"])
    folder = run(config)
    found = read_json(folder / "manifest.json")["fingerprints"]["method function"]
    assert {"method function": found} == fingerprint_method(config.method)
    assert "-python-" in folder.name
    (tmp_path / "own_methods.py").write_text(MODULE + "\nother = 1\n")
    del sys.modules["own_methods"]
    assert fingerprint_method(config.method)["method function"] != found


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("own_methods", "method.function: found 'own_methods', expected package.module:function"),
        ("no_such_module:build", "method.function: .*no_such_module"),
        ("own_methods:biuld", "method.function: .*'biuld'.*'build'"),
        ("own_methods:number", "method.function: .*int"),
        ("own_methods:fails", "method.function: own_methods:fails raised RuntimeError: no luck"),
        ("own_methods:wrong", "method.function: own_methods:wrong returned int, expected .*Objective"),
    ],
)
def test_a_function_that_does_not_do_ends_in_one_line(tmp_path: Path, function: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        train(tmp_path / "run", *SMALL, "method=python", f"method.function={function}")
    assert "\n" not in str(error.value)


def test_arguments_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"method.function: .*unexpected keyword argument 'facto'"):
        train(tmp_path / "run", *SMALL, *OWN, "method.arguments={facto: 2.0}")
