"""The Hugging Face hub: used if it answers; if not, one message at once instead of a storm of retries."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from harness.storage.errors import InputError
from harness.storage.text import hide_passwords

PROBE_SECONDS = 3.0
ADVICE = (
    "download it on a machine with network access, or pass a local safetensors file (or .pth) as "
    "backbone.checkpoint=PATH"
)


def hub_answers() -> bool:
    """Whether a connection to the hub, or to the proxy before it, opens within `PROBE_SECONDS`."""
    return answers(constants.ENDPOINT)


def answers(url: str) -> bool:
    """Whether a connection to a server, or to the proxy before it, opens within `PROBE_SECONDS`.

    With HF_HUB_OFFLINE set the answer is False without a try.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    address = urlparse(url)
    proxy = getproxies().get(address.scheme)
    if proxy and not proxy_bypass(address.hostname or ""):
        address = urlparse(proxy if "//" in proxy else f"http://{proxy}")
    port = address.port or (443 if address.scheme == "https" else 80)
    opened = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((address.hostname or "", port), timeout=PROBE_SECONDS).close()
        except OSError:
            return
        opened.set()

    # a socket's timeout does not cover the name look-up
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return opened.is_set()


@contextmanager
def explain_hub_errors(what: str, advice: str = ADVICE) -> Iterator[None]:
    """Load from the hub or its cache; if neither has it, raise an `InputError` that says what to do."""
    online, before = hub_answers(), constants.HF_HUB_OFFLINE
    # timm and open_clip take no `local_files_only`; huggingface_hub looks at this flag at every request
    constants.HF_HUB_OFFLINE = not online
    try:
        yield
    except Exception as error:
        failed = [cause for cause in _causes(error) if isinstance(cause, HfHubHTTPError | EntryNotFoundError)]
        if online and not failed:
            raise
        said = f"answers {str(failed[-1]).splitlines()[0]!r}" if online else "does not answer"
        raise InputError(
            f"{what}: the hub at {hide_passwords(constants.ENDPOINT)} {hide_passwords(said)} and the cache "
            f"{constants.HF_HUB_CACHE} has no copy ({type(error).__name__}); {advice}"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def without_downloads() -> Iterator[None]:
    """Load from files and caches alone: no server is asked, as if none answered."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def explain_server_errors(what: str, url: str, cached: bool) -> Iterator[None]:
    """As `explain_hub_errors`, for weights at an address of their own instead of the hub."""
    server = urlparse(url).netloc.rpartition("@")[2]
    if not cached and not answers(url):
        raise InputError(f"{what}: {server} does not answer and torch's cache has no copy; {ADVICE}")
    try:
        yield
    except URLError as error:  # HTTPError is one
        raise InputError(f"{what}: {server} answers {hide_passwords(str(error))!r}; {ADVICE}") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and its causes: libraries wrap the errors of huggingface_hub."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
