"""The hub: used where it answers; where it does not, one message at once and no storm of retries."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants

from harness.errors import InputError

PROBE_SECONDS = 3.0


def hub_answers() -> bool:
    """Whether a connection to the hub, or to the proxy before it, opens within `PROBE_SECONDS`."""
    if constants.HF_HUB_OFFLINE:
        return False
    address = urlparse(constants.ENDPOINT)
    proxy = getproxies().get(address.scheme)
    if proxy and not proxy_bypass(address.hostname or ""):
        address = urlparse(proxy if "//" in proxy else f"http://{proxy}")
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=PROBE_SECONDS).close()
    except OSError:
        return False
    return True


@contextmanager
def hub_or_message(what: str) -> Iterator[None]:
    """Load from the hub or its cache; without both, an `InputError` that says what to do."""
    online, before = hub_answers(), constants.HF_HUB_OFFLINE
    # timm and open_clip take no `local_files_only`; huggingface_hub looks at this flag at every request
    constants.HF_HUB_OFFLINE = not online
    try:
        yield
    except Exception as error:
        if online:
            raise
        raise InputError(
            f"{what}: the hub at {constants.ENDPOINT} does not answer and the cache "
            f"{constants.HF_HUB_CACHE} has no copy ({type(error).__name__}); download it where there is a "
            "network, or give a local safetensors file"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before
