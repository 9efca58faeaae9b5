"""Compute a snapshot's layer tokens once, standardise them, and keep them where they fit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from harness.backbones import Backbone
from harness.config import (
    TokenPlace,
    TrainedMappingConfig,
)
from harness.storage import (
    InputError,
    make_folder,
    partial_suffix,
)
from harness.tokens.extraction import (
    LayerMeans,
    LayerTokens,
    iterate_tokens,
    join_tokens,
)
from harness.tokens.frame import (
    StandardTokens,
    TokenFrame,
    check_finite,
    gathers_together,
    measure_frame,
)

SHARE = 0.6  # of free memory or disk that tokens may take
FRAME_BYTES = 2**30  # of training stimuli's tokens that the frame is measured on
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

Place = Literal["device", "memory", "disk"]


def store_tokens(
    backbone: Backbone,
    images: Sequence[Image.Image],
    train: Int[np.ndarray, " n_train"],
    config: TrainedMappingConfig,
    batch_size: int,
    device: torch.device | str,
    folder: Path,
    progress: str | None = None,
    means: LayerMeans | None = None,
) -> StandardTokens:
    """Compute the tokens of all images and store them, standardised by the training stimuli.

    Training stimuli come early: their frame is known after the first GiB (or all of them, if fewer), and
    every token is written once.

    Parameters
    ----------
    backbone : Backbone
    images : sequence of PIL images
    train : int array [n_train]
        Images that the frame is measured on.
    config : TrainedMappingConfig
        Its `token_size` is the number of rows and columns that local tokens are resized to (bilinear),
        `token_precision` the precision of the stored tokens, and `token_place` where they are stored; "auto"
        takes the first place with enough room in 60 % of its free space.
    batch_size : int
        Images per forward pass.
    device : torch.device or str
        Device of the backbone, and of tokens when they are read.
    folder : Path
        Folder of the file of tokens. The file is unlinked at once, so it vanishes with the process.
    progress : str, optional
        Label of a progress bar; none without.
    means : LayerMeans, optional
        Collects means of its images in the same pass.

    Raises
    ------
    InputError
        If tokens are not finite in this precision.
    OSError
        If the disk is full.
    """
    others = np.setdiff1d(np.arange(len(images)), train)
    order = np.concatenate([train, others]).tolist()
    parts = iterate_tokens(backbone, images, order, config.token_size, batch_size, device, progress, means)
    precision, place = config.token_precision, config.token_place
    waiting: list[tuple[list[int], LayerTokens]] = []
    store: StandardTokens | None = None
    for rows, part in parts:
        waiting.append((rows, part))
        if store is None:
            n_measured = min(len(train), max(FRAME_BYTES // _bytes_per_image(part, 4), 2))
            passed = np.concatenate([rows for rows, _ in waiting])
            trained_on = np.flatnonzero(np.isin(passed, train))
            if len(trained_on) < n_measured:
                continue
            measured = join_tokens([part for _, part in waiting])
            frame = measure_frame(measured.take(trained_on[:n_measured]))
            store = _allocate(
                part, len(images), frame, DTYPES[precision], place, torch.device(device), folder
            )
        for rows, part in waiting:
            _write(store, rows, frame.apply(part), precision)
        waiting.clear()
    assert store is not None
    return store


def _write(store: StandardTokens, rows: list[int], tokens: LayerTokens, precision: str) -> None:
    chosen = torch.as_tensor(rows)
    kept = LayerTokens(
        tuple(layer.to(DTYPES[precision]) for layer in tokens.local),
        tuple(layer.to(DTYPES[precision]) for layer in tokens.global_),
        tokens.layers,
    )
    try:
        check_finite(kept)
    except InputError as error:
        check_finite(tokens)
        raise InputError(f"mapping.token_precision: {precision} is too narrow: {error}") from None
    for target, layer in zip((*store.local, *store.global_), (*kept.local, *kept.global_), strict=True):
        target[chosen.to(target.device)] = layer.to(target.device)


def _bytes_per_image(part: LayerTokens, n_bytes: int) -> int:
    return n_bytes * sum(layer[0].numel() for layer in (*part.local, *part.global_))


def _allocate(
    part: LayerTokens,
    n_images: int,
    frame: TokenFrame,
    dtype: torch.dtype,
    wanted: TokenPlace,
    device: torch.device,
    folder: Path,
) -> StandardTokens:
    place = (
        wanted
        if wanted != "auto"
        else choose_place(n_images * _bytes_per_image(part, dtype.itemsize), device)
    )

    def make(*shape: int) -> Tensor:
        match place:
            case "device":
                return torch.empty(shape, dtype=dtype, device=device)
            case "memory":
                return torch.empty(shape, dtype=dtype)
            case "disk":
                return _map_file(shape, dtype, folder)

    if place == "device" and gathers_together(device) and len({layer.shape for layer in part.local}) == 1:
        n_layers, (_, n_channels, height, width) = len(part.local), part.local[0].shape
        local = [*make(n_layers, n_images, height, width, n_channels).movedim(-1, 2).unbind()]
        global_ = [*make(n_layers, n_images, n_channels).unbind()]
    else:
        local = []
        for layer in part.local:
            _, n_channels, height, width = layer.shape
            # channels last, as the fit reads them
            local.append(make(n_images, height, width, n_channels).permute(0, 3, 1, 2))
        global_ = [make(n_images, layer.shape[1]) for layer in part.global_]
    ahead = place == "disk" or (place == "memory" and device.type != "cpu")
    return StandardTokens(tuple(local), tuple(global_), part.layers, frame, device, ahead)


def choose_place(n_bytes: int, device: torch.device) -> Place:
    """The first of the device's memory, main memory and a file that has room."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if n_bytes <= SHARE * free:
            return "device"
    # the processes of a run share the machine
    n_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if n_bytes <= SHARE * psutil.virtual_memory().available / n_processes:
        return "device" if device.type == "cpu" else "memory"
    return "disk"


def _map_file(shape: Sequence[int], dtype: torch.dtype, folder: Path) -> Tensor:
    make_folder(folder)
    handle, path = tempfile.mkstemp(partial_suffix(), ".tokens-", folder)
    try:
        # a mapping of a file that the disk has no room for would kill the process when it is written to
        os.posix_fallocate(handle, 0, prod(shape) * dtype.itemsize)
        mapped = torch.from_file(path, shared=True, size=prod(shape), dtype=dtype)
    except OSError as error:
        error.filename = str(folder)
        raise
    finally:
        os.close(handle)
        os.unlink(path)
    return mapped.view(*shape)
