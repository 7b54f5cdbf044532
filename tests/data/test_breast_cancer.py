import numpy as np
from sklearn.datasets import load_breast_cancer

from lit_xai.data import BreastCancer


def test_it_is_scikit_learns_with_names():
    data = BreastCancer()
    data.setup()
    found = load_breast_cancer()
    rows = data.split(569)[2]
    assert data.test_dataset.targets.tolist() == found.target[rows].tolist()
    raw = data.test_dataset.inputs.numpy() * np.array(data.std, np.float32) + np.array(data.mean, np.float32)
    np.testing.assert_allclose(raw, found.data[rows], rtol=1e-3, atol=1e-4)
    assert (data.feature_names, data.class_names) == (list(found.feature_names), ["malignant", "benign"])
