"""Errors that a user sees: one line that says what was found and what is expected."""

from __future__ import annotations

import difflib
import errno
import hashlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.storage.launchers import (
    ERRORS_FOLDER,
    TERMINATED,
    Terminated,
    ending_in_order,
    silence_launcher,
)

# Longer lists make a line too long: only the nearest names are listed.
MOST_LISTED = 40
LONGEST_NAME = 200  # characters
# Not the program's fault: disk full, over quota, read-only, not allowed, defective, a file for a folder.
MACHINE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
)
INTERRUPTED = 130  # exit status after Ctrl-C, as in shells


class InputError(ValueError):
    """Bad input from outside: a setting, a file, a name. The message is one line."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Build the error for a name that does not exist, with the names that do and the nearest one.

    Parameters
    ----------
    kind : str
        What was being named, e.g. ``"backbone"``.
    name : str
        The name given.
    known : iterable of str
        The names that exist.
    """
    names, name = sorted(known), _shorten(name)  # a name from a file may be of any length
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if len(names) > MOST_LISTED:
        listed = ", ".join(difflib.get_close_matches(name, names, n=5, cutoff=0.0))
        return InputError(f"unknown {kind} {name!r}: expected one of {len(names)}, such as {listed}{hint}")
    if len(names) < 2:
        return InputError(
            f"unknown {kind} {name!r}: {f'expected {names[0]}' if names else 'none available'}{hint}"
        )
    return InputError(f"unknown {kind} {name!r}: expected one of {', '.join(names)}{hint}")


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def exit_with_one_line(main: Callable[[], object]) -> None:
    """Run an entry point and turn expected failures into one line on standard error.

    An `InputError` and an error of the machine, such as a full disk, exit with status 2, Ctrl-C with 130,
    SIGTERM with 143. The end of the process that launched this one counts as SIGTERM.
    Warnings are printed as they are, whatever a library would put before them.
    """
    logging.basicConfig(format="%(message)s")
    # said with the file's name when an image is first read (`name_warnings`), not at every later decoding
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with ending_in_order():
            main()
    except InputError as error:
        message, status = f"error: {error}", 2
    except Terminated:
        message, status = "terminated", TERMINATED
    except KeyboardInterrupt:
        message, status = "interrupted", INTERRUPTED
    except BrokenPipeError:
        # the reader of our output, such as `head`, has closed: stop, and keep Python from flushing into it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        message, status = f"error: {error.filename or 'disk'}: {error.strerror}", 2
    else:
        return
    if _has_news(message, status):
        print(message, file=sys.stderr)
    silence_launcher()
    raise SystemExit(status)


def _has_news(message: str, status: int) -> bool:
    """Whether no other process of this launch has printed the message, or the reason for it.

    A launcher ends all processes when one has failed, which then tells why.
    """
    folder = os.environ.get(ERRORS_FOLDER)
    if folder is None:
        return True
    name = hashlib.sha256(message.encode()).hexdigest()[:16]
    try:
        if status == TERMINATED and os.listdir(folder):
            return False
        os.close(os.open(Path(folder) / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
