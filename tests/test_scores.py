"""Scores against hand-computed values."""

from __future__ import annotations

import numpy as np

from harness.mappings.voxel_scores import score


def test_score_by_hand() -> None:
    truth = np.array([[0.0, 1.0, 5.0, 1.0], [1.0, 2.0, 5.0, 2.0], [2.0, 3.0, 5.0, 3.0]], dtype=np.float32)
    found = np.array([[0.0, 2.0, 4.0, 6.0], [1.0, 2.0, 5.0, 4.0], [2.0, 2.0, 6.0, 2.0]], dtype=np.float32)
    r2, correlation = score(found, truth)
    # perfect; the mean; a voxel that does not vary; the wrong way round: SSE 25 + 4 + 1 against SST 2
    np.testing.assert_allclose(r2, [1, 0, 0, -14], atol=1e-6)
    np.testing.assert_allclose(correlation, [1, 0, 0, -1], atol=1e-6)
