"""Folders of class folders: splits, subsets, leaks and errors."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from made_images import make_image, write_folders
from PIL import ExifTags, Image

from harness.storage.errors import InputError
from harness.storage.image_files import decode_image
from tasks.load import load_task
from tasks.task import Task

CLASSES = {"great_tit": 6, "robin": 5}


def load(root: Path, **settings: object) -> Task:
    return load_task("birds", source="imagefolder", root=str(root), **settings)


def pixels(split: object) -> list[bytes]:
    return [np.asarray(image).tobytes() for image in split["image"]]


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    write_folders(tmp_path / "train", CLASSES)
    write_folders(tmp_path / "test", {"great_tit": 3, "robin": 2}, first=1000)
    return tmp_path


def test_folders_are_splits_and_classes(split_folder: Path) -> None:
    task = load(split_folder)
    assert (task.name, task.class_names, task.multi_label) == ("birds", ("great tit", "robin"), False)
    assert task.templates == ("a photo of a {}.",)
    assert task.train["label"] == [0] * 6 + [1] * 5 and task.test["label"] == [0] * 3 + [1] * 2
    np.testing.assert_array_equal(np.asarray(task.test[1]["image"]), np.asarray(make_image(1001)))
    assert task.describe() == {
        "fingerprint": task.fingerprint,
        "n_train": 11,
        "n_test": 5,
        "n_classes": 2,
        "multi_label": False,
        "test_images_also_in_train": 0,
    }


def test_images_are_decoded_when_asked_for(split_folder: Path) -> None:
    task = load(split_folder)
    make_image(5, 200).save(split_folder / "train" / "great_tit" / "000.png")
    np.testing.assert_array_equal(np.asarray(task.train[0]["image"]), np.asarray(make_image(5, 200)))
    assert load(split_folder).fingerprint != task.fingerprint
    assert load(split_folder).image_hashes[1] == task.image_hashes[1]


def test_a_folder_of_classes_is_split_by_the_seed(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "birds", {"a": 10, "b": 5})
    task, other = load(root, test_share=0.4), load(root, test_share=0.4, seed=1)
    assert np.bincount(task.train["label"]).tolist() == [6, 3]
    assert np.bincount(task.test["label"]).tolist() == [4, 2]
    assert not set(pixels(task.train)) & set(pixels(task.test))
    assert load(root, test_share=0.4).fingerprint == task.fingerprint != other.fingerprint


def test_validation_is_the_test_where_there_is_no_other(tmp_path: Path) -> None:
    write_folders(tmp_path / "train", CLASSES)
    write_folders(tmp_path / "val", {"great_tit": 2, "robin": 2}, first=500)
    assert len(load(tmp_path).test) == 4
    write_folders(tmp_path / "test", {"robin": 1}, first=700)
    assert len(load(tmp_path).test) == 1
    assert len(load(tmp_path, test="val").test) == 4


def test_so_many_of_every_class_are_nested(split_folder: Path) -> None:
    small, large = (load(split_folder, n_per_class=n, n_test=2) for n in (2, 4))
    assert np.bincount(small.train["label"]).tolist() == [2, 2]
    assert set(pixels(small.train)) < set(pixels(large.train))
    assert small.image_hashes[1] == large.image_hashes[1] and len(small.test) == 2
    with pytest.raises(InputError, match=r"task.n_per_class: found 6, expected at most 5, .* 'robin'"):
        load(split_folder, n_per_class=6)
    with pytest.raises(InputError, match=r"task.n_train: found 12, expected at most 11"):
        load(split_folder, n_train=12)
    assert len(load(split_folder, n_train=12, at_most=True).train) == 11


def test_embedded_tasks_have_subsets_by_class_too() -> None:
    for name in ("digits", "shapes"):
        small, large = (load_task(name, n_test=5, n_per_class=n, image_size=8) for n in (1, 3))
        assert np.bincount(small.train["label"]).tolist() == [1] * small.n_classes
        assert set(pixels(small.train)) < set(pixels(large.train))


def leak(root: Path) -> None:
    # the same pixels in another format, with another label
    make_image(0).save(root / "test" / "robin" / "copy.bmp")


def test_leaks_are_reported(split_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    leak(split_folder)
    with caplog.at_level(logging.WARNING):
        task = load(split_folder)
    assert "task birds: 1 of 6 test images are also training images" in caplog.text
    assert task.describe()["test_images_also_in_train"] == 1 and len(task.test) == 6


def test_leaks_are_dropped_or_refused(split_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    clean = load(split_folder)
    leak(split_folder)
    task = load(split_folder, leaks="drop")
    assert (task.n_leaked, task.test["label"]) == (1, clean.test["label"])
    assert task.fingerprint == clean.fingerprint
    with pytest.raises(InputError, match=r"task birds: 1 of 6 test images are also .*task.leaks=error"):
        load(split_folder, leaks="error")
    for path in split_folder.glob("test/*/0*.png"):
        path.unlink()
    make_image(100).save(split_folder / "test" / "great_tit" / "x.png")
    with pytest.raises(InputError, match="no test image is left"):
        load(split_folder, leaks="drop")


def test_turned_images_are_upright_as_those_of_every_other_source(split_folder: Path) -> None:
    path = split_folder / "train" / "robin" / "turned.png"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.arange(32, dtype=np.uint8).reshape(4, 8)).convert("LA").save(path, exif=exif)
    task = load(split_folder)
    (shown,) = [image for image in task.train["image"] if image.size == (4, 8)]
    assert shown.tobytes() == decode_image(path).tobytes()
    # also in a subset, decoded one by one
    rows = [row for row in range(len(task.train)) if task.train[row]["image"].size == (4, 8)]
    assert task.train.select(rows)[0]["image"].tobytes() == shown.tobytes()


def test_an_image_that_breaks_while_training_is_named(split_folder: Path) -> None:
    task = load(split_folder)
    for path in split_folder.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"train/robin/\d+\.png: not a readable image"):
        task.train[len(task.train) - 1]


def test_what_was_decoded_once_is_remembered(split_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load(split_folder)
    monkeypatch.setattr("tasks.pixel_hashes.decode_image", lambda *_: pytest.fail("decoded again"))
    assert load(split_folder).fingerprint == task.fingerprint


def test_class_names_go_with_the_folders_in_order(split_folder: Path) -> None:
    task = load(split_folder, class_names=("a great tit", "a robin"), templates=("{}",))
    assert (task.class_names, task.templates) == (("a great tit", "a robin"), ("{}",))
    with pytest.raises(InputError, match=r"class_names: found 1, expected 2"):
        load(split_folder, class_names=("one",))


def test_broken_images_are_named(split_folder: Path) -> None:
    broken = split_folder / "train" / "robin" / "002.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"{broken}: not a readable image"):
        load(split_folder)
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match=rf"{broken}: not a readable image$"):
        load(split_folder)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(broken)
    with pytest.raises(InputError, match=rf"{broken}: found an image of mode I;16, expected 8 bits"):
        load(split_folder)


def test_bad_folders_are_named(tmp_path: Path, split_folder: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "flat").mkdir()
    make_image(0).save(tmp_path / "flat" / "a.png")
    with pytest.raises(InputError, match=r"flat: found no subfolders, expected one per class"):
        load(tmp_path / "flat")
    with pytest.raises(InputError, match=r"unknown split .*'trian'.* mean 'train'"):
        load(split_folder, train="trian")
    with pytest.raises(InputError, match=r"unknown split .*'tset'.* mean 'test'"):
        load(split_folder, test="tset")
    with pytest.raises(InputError, match="found one class, expected two or more: all 3 images are 'a'"):
        load(write_folders(tmp_path / "one", {"a": 3}))
    (split_folder / "test" / "wren").mkdir()
    with pytest.raises(InputError, match=r"wren: found no image"):
        load(split_folder)
    make_image(7).save(split_folder / "test" / "wren" / "a.png")
    with pytest.raises(InputError, match=r"test: found 1 images of 'wren', but none in the training images"):
        load(split_folder)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("training", "testing"),
        ("Training", "Validation"),
        ("train", "valid"),
    ],
)
def test_splits_are_read_however_they_are_spelled(
    tmp_path: Path, train: str, test: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_folders(tmp_path / train, CLASSES)
    write_folders(tmp_path / test, {"great_tit": 3, "robin": 2}, first=1000)
    with caplog.at_level(logging.WARNING):
        task = load(tmp_path)
    assert task.class_names == ("great tit", "robin")
    assert (len(task.train), len(task.test)) == (11, 5)
    assert (f"'{train}' (11 images) is read as the training split" in caplog.text) == (train != "train")
    assert load(tmp_path, train=train, test=test).fingerprint == task.fingerprint


def test_splits_that_are_not_used_are_counted(split_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folders(split_folder / "val", {"robin": 4})
    (split_folder / "masks").mkdir()
    make_image(1).save(split_folder / "masks" / "0.png")
    make_image(2).save(split_folder / "stray.png")
    make_image(3).save(split_folder / "test" / "stray.png")
    (split_folder / "test" / "labels.csv").touch()
    with caplog.at_level(logging.WARNING):
        assert len(load(split_folder).test) == 5
    assert "left out: 'val' (4 images)" in caplog.text
    assert "1 images are left out, of folders without class folders: masks" in caplog.text
    assert "2 images are left out: they are in no class folder, such as stray.png" in caplog.text
    assert "1 files are left out: 1 .csv" in caplog.text


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ("train_images/a", "train_images/b", "test_images/a"),
            r"look like splits; .* as task.train and task.t",
        ),
        (
            ("Train-2017", "Val-2017"),
            r"Train-2017 \(2 images\), Val-2017 \(2 .*look like splits; expected folders",
        ),
        (("train", "test"), r"look like splits; expected folders of classes in them"),
        (("Train/a", "TRAIN/a"), r"splits '\w+', '\w+', which differ only in case"),
        (("test/a", "test/b"), r"found no training split with class folders among test \(4 images\)"),
        (("birds/robin", "birds/wren"), r"a single folder, birds \(4 images\), .*mean task.root=.*/birds\?"),
    ],
)
def test_folders_that_are_no_classes_are_refused(
    tmp_path: Path, folders: tuple[str, ...], message: str
) -> None:
    for place, name in enumerate(folders):
        write_folders(tmp_path, {name: 2}, first=100 * place)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_settings_of_splits_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path, CLASSES)
    for setting in ({"test": "val"}, {"train": "training_set"}):
        with pytest.raises(InputError, match=rf"unknown split in .* '{next(iter(setting.values()))}'"):
            load(tmp_path, **setting)


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    write_folders(tmp_path, {"bus": 3, "train": 3})
    assert load(tmp_path).class_names == ("bus", "train")
    write_folders(tmp_path / "train", {"steam": 2}, first=700)
    with pytest.raises(InputError, match="found one class"):
        load(tmp_path)
    assert load(tmp_path, classes=("train", "bus")).class_names == ("train", "bus")


def test_names_of_numbered_folders_need_their_order(tmp_path: Path) -> None:
    write_folders(tmp_path, {"1": 2, "2": 2, "10": 2})
    names = ("one", "two", "ten")
    with pytest.raises(InputError, match=r"class_names: .* folders 1, 10, 2, .* 1, 2, 10, .* task.classes"):
        load(tmp_path, class_names=names)
    task = load(tmp_path, class_names=names, classes=("1", "2", "10"))
    first = np.asarray(make_image(200)).tobytes()  # of folder 10, the third one written
    of_first = [
        split["label"][pixels(split).index(first)]
        for split in (task.train, task.test)
        if first in pixels(split)
    ]
    assert task.class_names == names and of_first == [2]


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    write_folders(tmp_path / "store", {"deep": 4}, first=50)
    root = write_folders(tmp_path / "root", {"a": 2, "b": 2})
    (root / "a" / "more").symlink_to(tmp_path / "store" / "deep")
    (root / "c").symlink_to(tmp_path / "store")
    task = load(root, test_share=0.25)
    counts = np.bincount([*task.train["label"], *task.test["label"]])
    assert counts.tolist() == [6, 2, 4]


def test_transparent_images_are_counted_on_every_load(
    split_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = load(split_folder)
    with Image.open(split_folder / "train" / "robin" / "001.png") as image:
        image.load()
    image.putalpha(0)
    image.save(split_folder / "train" / "robin" / "001.png")
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            task = load(split_folder)
        assert "1 of 11 images are transparent in part and shown on white" in caplog.text
        assert "robin/001.png" in caplog.text
    assert task.fingerprint != plain.fingerprint
    (blank,) = [image for image in task.train["image"] if (np.asarray(image) == 255).all()]
    assert blank.mode == "RGB"


def test_equal_pictures_with_other_labels_are_counted(
    split_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_image(0).save(split_folder / "train" / "robin" / "again.bmp")
    with caplog.at_level(logging.WARNING):
        task = load(split_folder)
    assert len(task.train) == 12
    assert "task birds: 2 images, equal pixel by pixel to another one, have another label" in caplog.text
