import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from lit_xai.data import Diabetes


def test_targets_are_in_standard_deviations_and_columns_have_names():
    data = Diabetes()
    table = data.read()
    found = load_diabetes(scaled=False)
    np.testing.assert_allclose(table.labels * data.target_std + data.target_mean, found.target, rtol=1e-6)
    assert float(table.labels.mean()) == pytest.approx(0, abs=1e-3)
    assert float(table.labels.std()) == pytest.approx(1, abs=2e-3)
    np.testing.assert_array_equal(table.features, found.data)
    assert len(table.feature_names) == 10
    data.setup("fit")
    assert not hasattr(data, "class_names")
