"""Tables of image files: single and multiple labels, splits, groups and errors."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_images import FINDINGS, make_image, write_findings, write_folders

from harness.config.compose import load_config
from harness.storage.errors import InputError
from tasks.load import load_task
from tasks.losses import label_loss
from tasks.task import Task

COLUMNS = {"image_column": "file", "label_columns": FINDINGS, "multi_label": True}
LISTS = {
    "image_column": "file",
    "label_column": "findings",
    "separator": "|",
    "no_label": "No Finding",
    "multi_label": True,
}


def load(table: Path, **settings: object) -> Task:
    return load_task("made", source="table", table=str(table), **settings)


@pytest.fixture
def findings(tmp_path: Path) -> Path:
    return write_findings(tmp_path, 32)


def write_birds(root: Path, name: str = "birds.csv") -> Path:
    write_folders(root, {"robin": 6, "wren": 4})
    rows = [
        (f"{bird}/{i:03d}.png", bird, "train" if i else "test")
        for bird, n in (("robin", 6), ("wren", 4))
        for i in range(n)
    ]
    frame = pd.DataFrame(rows, columns=["image", "label", "part"])
    if name.endswith(".parquet"):
        frame.to_parquet(root / name)
    else:
        frame.to_csv(root / name, index=False, sep="\t" if name.endswith(".tsv") else ",")
    return root / name


@pytest.mark.parametrize("name", ["birds.csv", "birds.tsv", "birds.parquet"])
def test_a_table_of_one_label_an_image(tmp_path: Path, name: str) -> None:
    task = load(write_birds(tmp_path, name), split_column="part")
    assert task.class_names == ("robin", "wren") and not task.multi_label
    assert task.train["label"] == [0] * 5 + [1] * 3 and task.test["label"] == [0, 1]
    drawn = load(tmp_path / name, test_share=0.5)
    assert np.bincount(drawn.test["label"]).tolist() == [3, 2]


def test_numbers_are_labels_too(tmp_path: Path) -> None:
    table = write_birds(tmp_path)
    frame = pd.read_csv(table)
    frame["label"] = frame["label"].map({"robin": 7, "wren": 3})
    frame.to_csv(table, index=False)
    task = load(table, split_column="part")
    assert task.class_names == ("3", "7") and task.test["label"] == [1, 0]
    named = load(table, split_column="part", classes=("7", "3"), class_names=("a_robin", "a wren"))
    assert named.class_names == ("a robin", "a wren") and named.test["label"] == [0, 1]
    with pytest.raises(
        InputError, match=r"birds.csv, part train, row 0: found label 7, which has no name; expected 0, 1"
    ):
        load(table, split_column="part", class_names=("x", "y"))


def test_columns_and_lists_say_the_same(findings: Path) -> None:
    columns, lists = load(findings, **COLUMNS), load(findings, **LISTS)
    assert columns.multi_label and lists.multi_label
    assert columns.class_names == FINDINGS and lists.class_names == tuple(sorted(FINDINGS))
    order = [lists.class_names.index(name) for name in FINDINGS]
    np.testing.assert_array_equal(np.array(columns.train["label"]), np.array(lists.train["label"])[:, order])
    # the colour channels of an image are high where a bit of its number is set
    for item in columns.train:
        assert ((np.asarray(item["image"]).mean(axis=(0, 1)) > 110) == np.array(item["label"])).all()


def test_two_tables_are_two_splits(tmp_path: Path) -> None:
    train = write_findings(tmp_path, 16)
    test = write_findings(tmp_path, 8, first=100, name="test.csv")
    task = load(train, test_table=str(test), **COLUMNS)
    assert (len(task.train), len(task.test)) == (16, 8)
    assert task.test["label"][5] == [1, 0, 1]


def test_patients_stay_together(findings: Path) -> None:
    task = load(findings, group_column="patient", test_share=0.3, **COLUMNS)
    frame = pd.read_csv(findings)
    train = {np.asarray(image).tobytes() for image in task.train["image"]}
    whole = load(findings, test_share=0.01, **COLUMNS)
    assert len(whole.test) == 1
    patients = [set(), set()]
    from PIL import Image

    for name, patient in zip(frame["file"], frame["patient"], strict=True):
        with Image.open(findings.parent / name) as image:
            patients[np.asarray(image).tobytes() in train].add(patient)
    assert not patients[0] & patients[1] and all(patients)


def test_so_many_images_of_every_label(findings: Path) -> None:
    small, large = (load(findings, n_per_class=n, **COLUMNS) for n in (2, 5))
    assert (np.array(small.train["label"]).sum(axis=0) >= 2).all() and len(small.train) <= 8
    assert len(small.train) < len(large.train)


def test_the_loss_is_that_of_the_labels(findings: Path) -> None:
    logits = torch.tensor([[0.0, 2.0], [-1.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    by_hand = -(np.log(0.5) + np.log(1 - 1 / (1 + np.exp(-2))) + np.log(1 - 1 / (1 + np.e)) + np.log(0.5)) / 4
    assert label_loss(logits, labels).item() == pytest.approx(by_hand, rel=1e-6)
    single = -(np.log(1 / (1 + np.exp(2))) + np.log(1 / (1 + np.exp(-1)))) / 2
    assert label_loss(logits, torch.tensor([0, 1])).item() == pytest.approx(single, rel=1e-6)
    task = load(findings, **COLUMNS)
    assert task.loss(torch.zeros(2, 3), torch.ones(2, 3)).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_column": "files"}, r"unknown column of .*table.csv 'files'.* mean 'file'"),
        ({"label_columns": ("effusoin",)}, r"unknown column .*'effusoin'.* mean 'effusion'"),
        ({"group_column": "patiant"}, r"unknown column .* mean 'patient'"),
        ({"split_column": "part"}, r"unknown column .*'part'"),
        (
            {"label_columns": ("patient", "mass")},
            r"table.csv, row 6: found 2 in column patient, expected 0 or 1",
        ),
        ({"root": "/nowhere"}, r"row 0: /nowhere/images/0000.png: no such file \(32 of 32 are missing\)"),
        ({"image_column": "patient"}, r"row 0: .*/0: no such file \(32 of 32 are missing\)"),
        ({"class_names": ("one",)}, r"class_names: found 1, expected 3"),
        ({"class_names": ("x", "x", "y")}, r"two classes named 'x'"),
    ],
)
def test_what_is_wrong_is_named(findings: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(findings, **(COLUMNS | settings))


def test_wrong_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"table.csv: no such file"):
        load(tmp_path / "table.csv")
    with pytest.raises(InputError, match=r"table.xlsx: expected a file ending in .csv, .tsv, .parquet"):
        load(tmp_path / "table.xlsx")
    for name, content in (("table.parquet", b"PAR1"), ("table.csv", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: not a readable table"):
            load(tmp_path / name)
    (tmp_path / "table.csv").write_text("image,label\n")
    with pytest.raises(InputError, match="found no rows"):
        load(tmp_path / "table.csv")


def test_wrong_labels_are_named(tmp_path: Path) -> None:
    table = write_birds(tmp_path)
    whole = pd.read_csv(table)
    for column, value, message in (
        ("label", None, r"part train, row 0: found no label"),
        ("label", "robin", "found one class, expected two"),
        ("part", "train", None),
        ("part", "testing", r"unknown split of .*'train': expected testing"),
    ):
        frame = whole.copy()
        frame.loc[frame.index[1:2] if value is None else frame.index, column] = value
        frame.to_csv(table, index=False)
        if message is None:
            assert len(load(table, split_column="part").test) == 2  # drawn: the table has no test split
        else:
            with pytest.raises(InputError, match=message):
                load(table, split_column="part")
    frame = whole.assign(label=["eagle", *whole["label"][1:]])
    frame.to_csv(table, index=False)
    with pytest.raises(InputError, match=r"part test: found 1 images of 'eagle', but none in the training"):
        load(table, split_column="part")


def write_rows(root: Path, rows: list[str], header: str = "image,label", name: str = "rows.csv") -> Path:
    """Write a table row by row, and the images 0.png, 1.png, … that its rows name."""
    for index in range(len(rows)):
        make_image(index).save(root / f"{index}.png")
    (root / name).write_text("\n".join([header, *rows]) + "\n")
    return root / name


def write_labels(root: Path, labels: list[str]) -> Path:
    return write_rows(root, [f"{index}.png,{label}" for index, label in enumerate(labels)])


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["007", "010"], ("007", "010")),
        (["7", "10"], ("7", "10")),
        (["1.0", "0.0"], ("0", "1")),
        (["NA", "EU"], ("EU", "NA")),
        (["mass", "None"], ("None", "mass")),
        (["nan", "null"], ("nan", "null")),
        (["True", "False"], ("False", "True")),
        (["1e5", "2e3"], ("1e5", "2e3")),
    ],
)
def test_labels_stay_as_they_are_written(tmp_path: Path, labels: list[str], names: tuple[str, ...]) -> None:
    task = load(write_labels(tmp_path, labels * 5))
    assert task.class_names == names
    assert len(task.train) + len(task.test) == 10


def test_labels_like_missing_values_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(write_labels(tmp_path, ["NA", "EU", "eu"] * 4))
    assert "label 'NA' (4 images) is a class; missing is only an empty label" in caplog.text
    assert "labels 'EU' (4 images) and 'eu' (4 images) are different classes" in caplog.text


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["0", "1", "", "1"], "row 2: found no label"),
        (["0", "1", "NA", "1"], "row 2: found no label"),
        (["0.5", "1", "0.5", "1"], "found label 0.5, expected a string or an integer"),
        (["x", "x"], "found one class, expected two or more: all 2 images are 'x'"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path: Path, labels: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write_labels(tmp_path, labels))


def test_truth_values_can_be_named(tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.parquet"):
        table = write_labels(tmp_path, ["True", "False"] * 5)
        if name.endswith("parquet"):
            frame = pd.read_csv(table)
            assert frame["label"].dtype == bool
            table = tmp_path / name
            frame.to_parquet(table)
        task = load(table, class_names=("healthy", "ill"), test_share=0.01)
        assert task.class_names == ("healthy", "ill") and task.train["label"][:2] == [1, 0]


def test_flags_may_be_truth_values(tmp_path: Path) -> None:
    rows = [f"{index}.png,{index % 2 == 0},{index % 3 == 0:d}" for index in range(6)]
    table = write_rows(tmp_path, rows, "image,mass,hernia")
    settings = {"label_columns": ("mass", "hernia"), "multi_label": True}
    task = load(table, test_share=0.01, **settings)
    found = np.array([*task.train["label"], *task.test["label"]])
    assert found.sum(axis=0).tolist() == [3, 2]
    table.write_text(table.read_text().replace("True", "yes", 1))
    with pytest.raises(InputError, match=r"row 0: found yes in column mass, expected 0 or 1"):
        load(table, **settings)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_columns_may_be_separated_otherwise(tmp_path: Path, separator: str) -> None:
    rows = [f"{index}.png{separator}{'ab'[index % 2]}" for index in range(8)]
    table = write_rows(tmp_path, rows, f"\ufeffimage{separator}label", "rows.CSV")
    assert load(table).class_names == ("a", "b")
    # semicolons within a cell are none between columns
    table = write_rows(tmp_path, [f"{index}.png,{'a;b' if index % 2 else 'c'}" for index in range(8)])
    assert load(table).class_names == ("a;b", "c")


def test_images_with_two_labels_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"{index}.png,{index % 2}" for index in range(8)]
    table = write_rows(tmp_path, [*rows, "./0.png,1"])
    message = r"0\.png: found two labels of one image, 0 in .*row 0, 1 in .*row 8 \(1 such images\)"
    with pytest.raises(InputError, match=message):
        load(table)
    table = write_rows(tmp_path, [*rows, "0.png,0"])
    with caplog.at_level(logging.WARNING):
        assert len(load(table, test_share=0.01).train) == 7
    assert "1 rows list an image again, with the same label; they are kept" in caplog.text


def test_a_split_column_is_read_however_it_is_spelled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = ["train", "Train", " TRAIN", "train", "Test", "test", "test", "val"]
    table = write_rows(
        tmp_path, [f"{index}.png,{index % 2},{part}" for index, part in enumerate(parts)], "image,label,part"
    )
    with caplog.at_level(logging.WARNING):
        task = load(table, split_column="part")
    assert task.train["label"] == [0, 1, 0, 1] and task.test["label"] == [0, 1, 0]
    assert "'Train' (1 rows), ' TRAIN' (1 rows) read as split 'train'" in caplog.text
    assert "left out: 'val' (1 images)" in caplog.text
    table.write_text(
        table.read_text().replace("5.png,1,test", "5.png,1,").replace("7.png,1,val", "7.png,1, ")
    )
    with pytest.raises(InputError, match=r"found 2 of 8 rows without a split in column part, such as row 5"):
        load(table, split_column="part")


def test_folds_are_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"{index}.png,{index % 2},{index % 3}" for index in range(12)]
    table = write_rows(tmp_path, rows, "image,label,fold")
    overrides = ["task=table", "task.name=m", f"task.table={table}", "task.split_column=fold"]
    config = load_config([*overrides, "task.train=0", "task.test=1"]).task
    assert (config.train, config.test) == ("0", "1")
    with caplog.at_level(logging.WARNING):
        task = load_task(**config.model_dump())
    assert task.train["label"] == [0, 1, 0, 1] and "left out: '2' (4 images)" in caplog.text
    with pytest.raises(InputError, match=r"^task\.train: found \[0, 1\], expected a valid string"):
        load_config([*overrides, "task.train=[0,1]"])
    with pytest.raises(InputError, match=r"task.test: found 1, expected task.split_column with it"):
        load(table, test="1")


def test_tables_that_would_be_misread_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows.csv: found column label twice"):
        load(write_rows(tmp_path, ["0.png,a,b"], "image,label,label"))
    content = (tmp_path / "0.png").read_bytes()
    frame = pd.DataFrame({"image": [{"bytes": content, "path": "0.png"}] * 2, "label": [0, 1]})
    frame.to_parquet(tmp_path / "bytes.parquet")
    with pytest.raises(InputError, match=r"row 0: found the content of an image .* task=hub") as error:
        load(tmp_path / "bytes.parquet")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("way", ["absolute", "dots", "link", "linked folder"])
def test_files_outside_the_root_are_refused_unless_allowed(way: str, tmp_path: Path) -> None:
    labels, images = tmp_path / "labels", tmp_path / "images"
    labels.mkdir()
    write_folders(images, {"robin": 6, "wren": 4})
    (labels / "in").mkdir()
    for name in sorted(path.relative_to(images) for path in images.rglob("*.png"))[1:]:
        (labels / "in" / name.parent).mkdir(exist_ok=True)
        (labels / "in" / name).write_bytes((images / name).read_bytes())
    rows = [f"in/{path.relative_to(labels / 'in')},{path.parent.name}" for path in labels.rglob("*.png")]
    first = min(images.rglob("*.png"))
    (labels / "folder").symlink_to(first.parent)
    (labels / "link.png").symlink_to(first)
    listed = {
        "absolute": str(first),
        "dots": f"../images/robin/{first.name}",
        "link": "link.png",
        "linked folder": f"folder/{first.name}",
    }[way]
    (labels / "birds.csv").write_text("\n".join(["image,label", *rows, f"{listed},robin"]) + "\n")
    expected = rf"birds.csv, row 9: found {listed}, which leads out of .*labels to {first} \(1 of 10 do\); .*"
    with pytest.raises(InputError, match=expected + "task.root.*task.allow_outside_root=true"):
        load(labels / "birds.csv")
    task = load(labels / "birds.csv", allow_outside_root=True)
    assert len(task.train) + len(task.test) == 10
    if way == "absolute":  # inside of another root
        rows = [f"{path},{path.parent.name}" for path in images.rglob("*.png")]
        (labels / "birds.csv").write_text("\n".join(["image,label", *rows]) + "\n")
        assert load(labels / "birds.csv", root=str(images)).class_names == ("robin", "wren")


def test_lists_of_labels_in_parquet(tmp_path: Path) -> None:
    rows = [["a"], ["b"], [], ["a", "b"]]
    write_rows(tmp_path, [f"{index}.png,x" for index in range(4)])
    frame = pd.DataFrame({"image": [f"{index}.png" for index in range(4)], "label": rows})
    frame.to_parquet(tmp_path / "lists.parquet")
    task = load(tmp_path / "lists.parquet", multi_label=True, n_test=1, test_share=0.01)
    assert task.class_names == ("a", "b")
    assert sorted([*task.train["label"], *task.test["label"]]) == [[0, 0], [0, 1], [1, 0], [1, 1]]
