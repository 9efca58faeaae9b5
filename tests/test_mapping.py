"""A mapping is read back whole, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from equality import assert_equal

from harness.mappings.families import FAMILIES
from harness.mappings.mapping import (
    ARRAYS,
    Mapping,
    load_mapping,
    save_mapping,
)
from harness.storage.errors import InputError
from harness.storage.files import (
    read_json,
    write_json,
)


def make_mapping() -> Mapping:
    draw = np.random.default_rng(0)
    return Mapping(
        layers=("a", "b", "c"),
        space=draw.uniform(-1, 1, (7, 2)).astype(np.float32),
        layer=draw.dirichlet(np.ones(3), 7).astype(np.float32),
        scale=draw.uniform(0, 1, 7).astype(np.float32),
        weights=draw.normal(size=(7, 4)).astype(np.float32),
        bias=draw.normal(size=7).astype(np.float32),
        r2=draw.uniform(0, 1, 7).astype(np.float32),
        correlation=draw.uniform(0, 1, 7).astype(np.float32),
        steps=12,
    )


def test_mapping_round_trip(tmp_path: Path) -> None:
    mapping = make_mapping()
    # arrays that are not contiguous are written by value
    mapping = replace(mapping, weights=np.asfortranarray(mapping.weights))
    save_mapping(mapping, tmp_path / "step-000012")
    assert_equal(load_mapping(tmp_path / "step-000012"), mapping)
    assert sorted(p.name for p in (tmp_path / "step-000012").iterdir()) == [
        "mapping.json",
        "mapping.safetensors",
    ]
    save_mapping(replace(mapping, steps=13), tmp_path / "step-000012")
    assert load_mapping(tmp_path / "step-000012").steps == 13


def test_what_a_model_has_learned_is_kept_and_read_where_it_is_wanted(tmp_path: Path) -> None:
    learned = {"model.a.weight": np.ones((2, 3), np.float32), "frame.local_scale": np.arange(3.0)}
    mapping = replace(make_mapping(), learned=learned)
    save_mapping(mapping, tmp_path / "m")
    assert_equal(load_mapping(tmp_path / "m", with_learned=True), mapping)
    assert load_mapping(tmp_path / "m").learned is None
    file = tmp_path / "m" / "learned.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match=r"learned\.safetensors"):
        load_mapping(tmp_path / "m", with_learned=True)
    save_mapping(make_mapping(), tmp_path / "m")
    assert load_mapping(tmp_path / "m", with_learned=True).learned is None


@pytest.mark.parametrize("name", ["mapping.safetensors", "mapping.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "not text"])
def test_damaged_mapping_names_the_file(name: str, damage: str, tmp_path: Path) -> None:
    save_mapping(make_mapping(), tmp_path / "m")
    path = tmp_path / "m" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {"truncated": content[: len(content) // 2], "empty": b"", "not text": b"\xff" * 40}[damage]
        )
    with pytest.raises(InputError) as error:
        load_mapping(tmp_path / "m")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_incomplete_mapping_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_mapping(make_mapping(), tmp_path / "m")
    path = tmp_path / "m" / "mapping.safetensors"
    arrays = load_file(path)
    save_file({name: array for name, array in arrays.items() if name != "r2"}, path)
    with pytest.raises(InputError, match="expected the arrays"):
        load_mapping(tmp_path / "m")
    save_file(arrays | {"scale": arrays["scale"][:3]}, path)
    with pytest.raises(InputError, match="scale"):
        load_mapping(tmp_path / "m")


def make_family(family: str) -> Mapping:
    absent = set(ARRAYS) - set(FAMILIES[family].arrays)
    return replace(make_mapping(), family=family, **dict.fromkeys(absent))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_a_family_does_not_have_stays_absent(family: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    save_mapping(make_family(family), tmp_path / "m")
    assert set(load_file(tmp_path / "m" / "mapping.safetensors")) == set(FAMILIES[family].arrays)
    assert_equal(load_mapping(tmp_path / "m"), make_family(family))


def test_files_from_before_there_were_families_are_read(tmp_path: Path) -> None:
    save_mapping(make_mapping(), tmp_path / "m")
    path = tmp_path / "m" / "mapping.json"
    old = {name: value for name, value in read_json(path).items() if name not in ("family", "sealed")}
    assert set(old) == {"layers", "steps"}
    write_json(path, old)
    assert_equal(load_mapping(tmp_path / "m"), make_mapping())


def test_arrays_that_a_family_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected the arrays space, .* of factortopy, found bias, corr"):
        replace(make_mapping(), space=None)
    with pytest.raises(InputError, match=r"expected the arrays layer, r2, correlation of layer_ridge"):
        replace(make_mapping(), family="layer_ridge")
    with pytest.raises(InputError, match=r"'layer_rigde'.*did you mean 'layer_ridge'"):
        replace(make_mapping(), family="layer_rigde")
    # a file must match the family it names
    save_mapping(make_family("layer_ridge"), tmp_path / "m")
    path = tmp_path / "m" / "mapping.json"
    content = {name: value for name, value in read_json(path).items() if name != "sealed"}
    write_json(path, content | {"family": "factortopy"})
    with pytest.raises(InputError, match=r"mapping\.safetensors: expected the arrays space"):
        load_mapping(tmp_path / "m")
    write_json(path, content | {"family": "nonsense"})
    with pytest.raises(InputError, match=r"mapping\.json: unknown family of mappings 'nonsense'"):
        load_mapping(tmp_path / "m")
