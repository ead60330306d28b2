"""The script that times `anydim advise` runs the command itself over vectors that look like those of documents."""

import numpy as np

from benchmarks.advise import advised, vectors


def test_drawn_vectors_have_neighbours_and_something_in_common() -> None:
    rows_ND = vectors(2000, 64, seed=1)
    np.testing.assert_allclose(np.linalg.norm(rows_ND, axis=1), 1, atol=1e-5)
    cosines = rows_ND @ rows_ND.T - 2 * np.eye(2000, dtype=np.float32)
    assert cosines.max(axis=1).mean() > np.median(cosines) + 0.2
    assert np.linalg.norm(rows_ND.mean(axis=0)) > 0.3
    assert not np.array_equal(rows_ND, vectors(2000, 64, seed=2))


def test_the_whole_command_is_timed() -> None:
    row = advised(500, 64, 1, ["--no-time", "--sample", "50"])
    assert (row["forms"], row["fitted_on"], row["measured_on"]) == (16, 250, 250)
    assert row["seconds"] > 0
    assert row["cpu_seconds"] > 0
