"""Our numbers against the published implementation's, and how the comparison fails."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.commands.conformance import main
from harness.mappings.factortopy.conformance import (
    compare_with_published,
    format_differences,
    published_name,
    read_reference,
)
from harness.storage.errors import (
    InputError,
    exit_with_one_line,
)

REFERENCE = Path(__file__).parent / "data" / "factortopy_reference.npz"


def run_main(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command on a file and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["conformance", str(path)])
    try:
        exit_with_one_line(main)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def record_other_file(
    seed: int, shape: tuple[int, int], widths: tuple[int, ...], n_steps: int
) -> dict[str, np.ndarray]:
    """Record a file computed directly: grid_sample, einsum, and the published names throughout.

    In float64, from numbers exact in float32, so the recorded values have no rounding error of their own.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(*size, generator=generator) * scale).double()

    n_voxels, n_channels, n_images, n_layers = 23, 5, 3, len(widths)
    coords = draw(n_voxels, 3, scale=30.0)
    longest = (coords.amax(0) - coords.amin(0)).max()
    frequencies = torch.tensor([1000 ** (-k / 32) for k in range(32)], dtype=torch.float64).float().double()
    angles = ((coords - coords.amin(0)) * (100 / longest)).unsqueeze(-1) * frequencies
    encoding = torch.stack([angles.sin(), angles.cos()], -1).reshape(n_voxels, -1)

    params = {"weight": draw(n_voxels, n_channels), "bias": draw(n_voxels)}
    for layer, width in enumerate(widths):
        params[f"local_token_bottleneck.{layer}.weight"] = draw(n_channels, width, 1, 1, scale=width**-0.5)
        params[f"global_token_bottleneck.{layer}.weight"] = draw(n_channels, width, scale=width**-0.5)
    for kind, n_out in (("space", 2), ("layer", n_layers), ("scale", 1)):
        for i, n_in in ((1, 192), (3, 128)):
            params[f"{kind}_selector_mlp.{i}.weight"] = draw(128, n_in, scale=n_in**-0.5)
            params[f"{kind}_selector_mlp.{i}.bias"] = draw(128, scale=0.1)
        params[f"{kind}_selector_mlp.5.weight"] = draw(n_out, 128, scale=0.2)
    params = {name: value.requires_grad_() for name, value in params.items()}
    local = [draw(n_steps, n_images, width, *shape) for width in widths]
    global_ = [draw(n_steps, n_images, width) for width in widths]
    responses = draw(n_steps, n_images, n_voxels)

    def network(kind: str) -> torch.Tensor:
        hidden = encoding
        for i in (1, 3):
            hidden = F.gelu(
                hidden @ params[f"{kind}_selector_mlp.{i}.weight"].T + params[f"{kind}_selector_mlp.{i}.bias"]
            )
        return hidden @ params[f"{kind}_selector_mlp.5.weight"].T

    def run(step: int) -> tuple[torch.Tensor, ...]:
        space, layer, scale = network("space").tanh(), network("layer").softmax(1), network("scale").sigmoid()
        mixed = torch.zeros(n_images, n_voxels, n_channels, dtype=torch.float64)
        for i in range(n_layers):
            tokens = F.conv2d(local[i][step], params[f"local_token_bottleneck.{i}.weight"])
            grid = space.view(1, n_voxels, 1, 2).repeat(n_images, 1, 1, 1)
            sampled = F.grid_sample(tokens, grid, align_corners=False).squeeze(-1).transpose(1, 2)
            whole = global_[i][step] @ params[f"global_token_bottleneck.{i}.weight"].T
            mixed = mixed + layer[:, i, None] * ((1 - scale) * sampled + scale * whole[:, None])
        prediction = (mixed * params["weight"]).mean(-1) + params["bias"]
        entropy = (
            -(layer * layer.log()).sum(1).mean() / np.log(n_layers) if n_layers > 1 else torch.tensor(0.0)
        )
        return space, layer, scale, prediction, ((scale - 0.5) ** 2).mean() - entropy

    file = {"coords": coords, "position_encoding": encoding, "responses": responses}
    file |= {f"param0/{name}": value.detach().clone() for name, value in params.items()}
    file |= {f"local/{i}": value for i, value in enumerate(local)}
    file |= {f"global/{i}": value for i, value in enumerate(global_)}
    optimizer = torch.optim.AdamW(params.values(), lr=1e-3)
    losses, regularizers = [], []
    for step in range(n_steps):
        *selectors, prediction, regularizer = run(step)
        loss = F.smooth_l1_loss(prediction, responses[step], beta=0.1)
        optimizer.zero_grad()
        (loss + 0.1 * max(1 - step / 2000, 0) * regularizer).backward()
        if step == 0:
            names = ("selector_space0", "selector_layer0", "selector_scale0", "prediction0", "regularizer0")
            file |= dict(zip(names, (*selectors, prediction, regularizer), strict=True))
            file |= {
                f"grad0/{n}": torch.zeros_like(p) if p.grad is None else p.grad.clone()
                for n, p in params.items()
            }
        optimizer.step()
        losses.append(loss.detach())
        regularizers.append(regularizer.detach())
    file |= {"losses": torch.stack(losses), "regularizers": torch.stack(regularizers)}
    file |= {f"param{n_steps}/{name}": value for name, value in params.items()}
    return {key: value.detach().numpy().astype(np.float32) for key, value in file.items()}


def test_published_numbers_are_reproduced() -> None:
    differences = compare_with_published(read_reference(REFERENCE))
    assert [d for d in differences if not d.conforms] == []


def test_every_recorded_result_is_compared() -> None:
    reference = read_reference(REFERENCE)
    inputs = {"coords", "responses"} | {
        key for key in reference if key.split("/")[0] in ("local", "global", "param0")
    }
    assert {d.array for d in compare_with_published(reference)} == set(reference) - inputs


@pytest.mark.parametrize(
    ("shape", "widths", "n_steps"), [((3, 7), (6, 9, 4), 4), ((5, 2), (8, 8), 2), ((1, 1), (3,), 1)]
)
def test_other_file_of_the_format(
    shape: tuple[int, int],
    widths: tuple[int, ...],
    n_steps: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    np.savez(tmp_path / "other.npz", **record_other_file(0, shape, widths, n_steps))
    assert run_main(tmp_path / "other.npz", monkeypatch) == 0


@pytest.mark.parametrize(
    ("array", "part"),
    [
        ("position_encoding", "position encoding"),
        ("selector_scale0", "selectors"),
        ("prediction0", "prediction"),
        ("regularizer0", "regularizer"),
        ("grad0/bias", "gradients"),
        ("losses", "losses"),
        ("regularizers", "regularizers"),
        ("param10/global_token_bottleneck.2.weight", "parameters after 10 steps"),
    ],
)
def test_perturbed_array_fails_and_is_named(
    array: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = read_reference(REFERENCE)
    reference[array] = reference[array] * 1.0001
    np.savez(tmp_path / "perturbed.npz", **reference)
    assert run_main(tmp_path / "perturbed.npz", monkeypatch) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 1
    assert part in failed[0]
    assert failed[0].endswith(array)


def test_nan_does_not_conform() -> None:
    reference = read_reference(REFERENCE)
    reference["prediction0"] = np.full_like(reference["prediction0"], np.nan)
    differences = compare_with_published(reference)
    assert [d.array for d in differences if not d.conforms] == ["prediction0"]
    assert "FAIL prediction" in format_differences(differences)


def test_zero_reference_is_compared_absolutely() -> None:
    reference = read_reference(REFERENCE)
    reference["losses"] = np.zeros_like(reference["losses"])
    losses = next(d for d in compare_with_published(reference) if d.array == "losses")
    assert losses.relative == pytest.approx(np.linalg.norm(read_reference(REFERENCE)["losses"]), rel=1e-5)


def test_published_name() -> None:
    assert published_name("space_selector.0.weight") == "space_selector_mlp.1.weight"
    assert published_name("local_bottleneck.11.weight") == "local_token_bottleneck.11.weight"
    assert published_name("bias") == "bias"


def write_broken(path: Path, kind: str) -> None:
    """Write a file that the comparison must reject."""
    if kind == "corrupt":
        path.write_bytes(b"not an archive")
    elif kind == "truncated":
        path.write_bytes(REFERENCE.read_bytes()[:100_000])
    elif kind == "flipped":
        data = bytearray(REFERENCE.read_bytes())
        data[200_000:200_100] = bytes(100)
        path.write_bytes(data)
    elif kind == "single array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "object array":
        np.savez(path, coords=np.array([{}], dtype=object))
    elif kind == "incomplete":
        np.savez(path, **{k: v for k, v in read_reference(REFERENCE).items() if k != "grad0/weight"})
    elif kind == "empty":
        np.savez(path)
    elif kind == "wrong shape":
        reference = read_reference(REFERENCE)
        np.savez(path, **(reference | {"responses": reference["responses"][:, :, :5]}))


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "corrupt",
        "truncated",
        "flipped",
        "single array",
        "object array",
        "incomplete",
        "empty",
        "wrong shape",
    ],
)
def test_bad_file_is_one_line_and_status_2(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.npz"
    write_broken(path, kind)
    assert run_main(path, monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(path) in error


def test_incomplete_file_names_the_array() -> None:
    reference = read_reference(REFERENCE)
    del reference["param0/layer_selector_mlp.3.bias"]
    with pytest.raises(InputError, match=r"param0/layer_selector_mlp\.3\.bias"):
        compare_with_published(reference)


def test_runs_as_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["conformance", str(tmp_path / "none.npz")])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("harness.conformance", run_name="__main__")
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.npz'}: no such file\n"
