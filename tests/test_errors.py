from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.storage.errors import (
    InputError,
    exit_with_one_line,
    unknown_name,
)
from harness.storage.files import make_folder
from harness.storage.launchers import ERRORS_FOLDER


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    error = unknown_name("backbone", "mini_clop", ["mini_random", "mini_clip"])
    assert isinstance(error, ValueError)
    assert str(error) == (
        "unknown backbone 'mini_clop': expected one of mini_clip, mini_random; did you mean 'mini_clip'?"
    )


def test_nothing_near_is_not_guessed() -> None:
    assert "did you mean" not in str(unknown_name("task", "zzz", ["digits", "shapes"]))
    assert str(unknown_name("task", "digits", [])) == "unknown task 'digits': none available"


def test_many_names_are_not_all_listed() -> None:
    names = [f"model_{place}" for place in range(1000)]
    message = str(unknown_name("timm model", "modell_77", names))
    assert "expected one of 1000, such as model_77" in message
    assert message.endswith("did you mean 'model_77'?")
    assert len(message) < 200


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=30), st.lists(st.text(min_size=1, max_size=10), max_size=60))
def test_the_message_names_what_was_given(name: str, known: list[str]) -> None:
    assert repr(name) in str(unknown_name("column", name, known))


def test_bad_input_ends_a_program_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise InputError("finetune.lr: found -1, expected above 0")

    with pytest.raises(SystemExit) as ended:
        exit_with_one_line(fails)
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "error: finetune.lr: found -1, expected above 0\n")


def test_other_errors_are_not_hidden() -> None:
    def fails() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        exit_with_one_line(fails)


def test_a_full_disk_ends_a_program_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/demo/x")

    with pytest.raises(SystemExit) as ended:
        exit_with_one_line(fails)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: runs/demo/x: No space left on device\n"


def test_a_file_in_the_place_of_a_folder_ends_a_program_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for fails in (lambda: make_folder(tmp_path / "file"), lambda: (tmp_path / "file" / "x").touch()):
        with pytest.raises(SystemExit) as ended:
            exit_with_one_line(fails)
        assert ended.value.code == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: {tmp_path / 'file'}") and message.count("\n") == 1


def test_sigterm_ends_a_program_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    before, ended = signal.getsignal(signal.SIGTERM), []

    def waits() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(100)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one does not cut the end off
            ended.append(True)

    with pytest.raises(SystemExit) as caught:
        exit_with_one_line(waits)
    assert (caught.value.code, ended) == (143, [True])
    assert capsys.readouterr().err == "terminated\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_process_that_its_launcher_ends_leaves_the_reason_to_the_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ERRORS_FOLDER, str(tmp_path))

    def fails() -> None:
        raise InputError("seed: found -1, expected 0 or more")

    def is_ended() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(100)

    for main, status in ((fails, 2), (is_ended, 143), (fails, 2)):
        with pytest.raises(SystemExit) as caught:
            exit_with_one_line(main)
        assert caught.value.code == status
    assert capsys.readouterr().err == "error: seed: found -1, expected 0 or more\n"


def test_a_missing_file_that_nobody_asked_for_is_a_bug_and_not_hidden() -> None:
    def fails() -> None:
        Path("/no/such/file").read_text()

    with pytest.raises(FileNotFoundError):
        exit_with_one_line(fails)
