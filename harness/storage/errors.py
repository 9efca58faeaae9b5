"""The one kind of error a user sees: a line that says what was found and what is accepted."""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Callable, Iterable

# more names than this are too long a line: only the nearest are listed
MOST_LISTED = 40
# no fault of the program: disk full, over quota, read-only, not allowed, defect
OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class InputError(ValueError):
    """Bad input from outside: a setting, a file, a name. The message is one line."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Error for a name that does not exist, with all that do and the nearest of them.

    Parameters
    ----------
    kind : str
        What was being named, e.g. ``"backbone"``.
    name : str
        What was given.
    known : iterable of str
        What is accepted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if len(names) > MOST_LISTED:
        listed = ", ".join(difflib.get_close_matches(name, names, n=5, cutoff=0.0))
        return InputError(f"unknown {kind} {name!r}: there are {len(names)}, such as {listed}{hint}")
    return InputError(f"unknown {kind} {name!r}: there is {', '.join(names) or 'none'}{hint}")


def exit_with_one_line(main: Callable[[], None]) -> None:
    """Run an entry point; an `InputError` or an unwilling disk ends it with one line and exit status 2."""
    try:
        main()
    except InputError as error:
        message = str(error)
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            raise
        message = f"{error.filename or 'disk'}: {error.strerror}"
    else:
        return
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)
