from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous.converter import read_net
from tools import bench_reading


def test_both_forms_are_the_same_full_size_net() -> None:
    old, new = (read_net(bench_reading.write_prototxt(version)) for version in ("V1", "V2"))
    assert (old.definition.format, old.dialect) == ("V1", "deeplab_v1")
    assert new.definition.format == "V2"
    assert old.parameter_count() == new.parameter_count() == 20_505_429  # sum of outputs * (inputs * k * k + 1)
    shapes = [blob.shape for blob in old.blobs()]
    assert shapes == [blob.shape for blob in new.blobs()]
    assert shapes[-1] == (1, 21, 65, 65)


def test_readers_that_disagree_are_no_benchmark(tmp_path: Path) -> None:
    scores = {reader: tmp_path / f"{reader}.npy" for reader in bench_reading.READERS}
    values = np.linspace(-1, 1, 100).reshape(1, 1, 10, 10)
    for path, factor in zip(scores.values(), (1, 1 + 1e-5), strict=True):
        np.save(path, values * factor)
    assert bench_reading.check_agreement(scores) == pytest.approx(1e-5, rel=0.01)
    np.save(scores["OpenCV"], values * 1.001)
    with pytest.raises(SystemExit, match="do not compute the same"):
        bench_reading.check_agreement(scores)
    np.save(scores["OpenCV"], np.full_like(values, np.nan))
    np.save(scores["atrous"], np.full_like(values, np.nan))
    with pytest.raises(SystemExit, match="cannot be compared"):
        bench_reading.check_agreement(scores)
