import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from torch.nn import functional as F

from lit_xai.models.classification import align, check_labels, classification_loss, probabilities


def one_hot_loss(logits, labels, weights, smoothing):
    """Cross entropy in numpy, from the definition: smoothed targets, each class's term times its weight."""
    classes = logits.shape[1]
    target = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    return -(target * weights * log_softmax(logits, axis=1)).sum() / weights[labels].sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 4.0]])
def test_multiclass_loss_is_weighted_smoothed_cross_entropy(weights, smoothing):
    logits, labels = torch.randn(16, 3, dtype=torch.double), torch.randint(3, (16,))
    given = None if weights is None else torch.tensor(weights, dtype=torch.double)
    found = classification_loss(logits, labels, "multiclass", given, smoothing)
    expected = one_hot_loss(logits.numpy(), labels.numpy(), np.array(weights or [1.0] * 3), smoothing)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
def test_binary_loss_is_that_of_two_classes(weights, smoothing):
    logits, labels = torch.randn(16, dtype=torch.double) * 5, torch.randint(2, (16,))
    given = None if weights is None else torch.tensor(weights, dtype=torch.double)
    found = classification_loss(logits, labels, "binary", given, smoothing)
    soft = labels * (1 - smoothing) + smoothing / 2
    plain = F.binary_cross_entropy_with_logits(logits, soft)
    both = np.stack([-logits.numpy() / 2, logits.numpy() / 2], axis=1)
    assert found.item() == pytest.approx(one_hot_loss(both, labels.numpy(), np.array(weights or [1.0, 1.0]), smoothing))
    assert weights or found.item() == pytest.approx(plain.item())


@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 2.0]])
def test_multilabel_loss_is_a_weighted_mean_of_binary_ones(weights):
    logits, labels = torch.randn(16, 3, dtype=torch.double), torch.randint(2, (16, 3))
    given = None if weights is None else torch.tensor(weights, dtype=torch.double)
    found = classification_loss(logits, labels, "multilabel", given, 0.1)
    columns = [classification_loss(logits[:, i], labels[:, i], "binary", None, 0.1).item() for i in range(3)]
    assert found.item() == pytest.approx(np.mean(np.array(weights or [1.0] * 3) * columns))


def test_binary_loss_stays_finite_far_out():
    loss = classification_loss(torch.tensor([1e4, -1e4]), torch.tensor([0, 1]), "binary")
    assert loss.item() == pytest.approx(1e4)


def test_probabilities_are_those_of_scipy():
    logits = torch.randn(5, 3, dtype=torch.double)
    torch.testing.assert_close(probabilities(logits[:, :1], "binary"), torch.from_numpy(expit(logits[:, 0].numpy())))
    torch.testing.assert_close(probabilities(logits, "multilabel"), torch.from_numpy(expit(logits.numpy())))
    torch.testing.assert_close(
        probabilities(logits, "multiclass"), torch.from_numpy(np.exp(log_softmax(logits.numpy(), axis=1)))
    )


@pytest.mark.parametrize("logits_shape", [(8,), (8, 1)])
@pytest.mark.parametrize("labels_shape", [(8,), (8, 1)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool, torch.uint8])
def test_binary_takes_columns_and_any_number_type(logits_shape, labels_shape, dtype):
    logits, labels = align(torch.zeros(logits_shape), torch.ones(labels_shape, dtype=dtype), "binary", 2)
    assert logits.shape == labels.shape == (8,)
    assert labels.dtype == torch.int64


def test_a_batch_of_one_keeps_its_dimension():
    logits, labels = align(torch.zeros(1, 1), torch.ones(1), "binary", 2)
    assert logits.shape == labels.shape == (1,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_low_precision_is_raised_and_high_precision_kept(dtype):
    logits, _ = align(torch.zeros(2, 3, dtype=dtype), torch.tensor([0, 1]), "multiclass", 3)
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_multiclass_per_pixel_is_taken_as_torch_takes_it():
    logits, labels = align(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64), "multiclass", 3)
    assert classification_loss(logits, labels, "multiclass").item() == pytest.approx(np.log(3))


@pytest.mark.parametrize(
    ("task", "logits", "labels", "message"),
    [
        ("multiclass", (8, 10), torch.zeros(8).long(), r"shape \(batch, 5\) for task='multiclass', but got \(8, 10\)"),
        ("multiclass", (8,), torch.zeros(8).long(), r"logits expected shape \(batch, 5\).* but got \(8,\)"),
        ("multiclass", (8, 5), torch.zeros(8, 5), r"integer class indices of shape \(8,\), but got torch.float32"),
        ("multiclass", (8, 5), torch.zeros(8), r"integer class indices of shape \(8,\), but got torch.float32"),
        ("multiclass", (8, 5), torch.zeros(7).long(), r"shape \(8,\), but got torch.int64 of shape \(7,\)"),
        ("binary", (8, 2), torch.zeros(8), r"shape \(batch,\) or \(batch, 1\) for task='binary', but got \(8, 2\)"),
        ("binary", (8, 1), torch.zeros(8, 2), r"zeros and ones of shape \(8,\)"),
        ("multilabel", (8, 4), torch.zeros(8, 4), r"shape \(batch, 5\) for task='multilabel'"),
        ("multilabel", (8, 5), torch.zeros(8).long(), r"zeros and ones of shape \(8, 5\), but got torch.int64"),
    ],
)
def test_what_does_not_fit_the_task_is_said_in_one_sentence(task, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        align(torch.zeros(logits), labels, task, 5)


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        ("multiclass", [0, 5], "from 0 to num_classes - 1 = 4, but got values from 0 to 5: set num_classes=6"),
        ("multiclass", [-1, 4], "but got values from -1 to 4"),
        ("binary", [0, 2], r"labels expected zeros and ones for task='binary', but got \[0, 2\]"),
        ("multilabel", [0.0, 0.5], r"labels expected zeros and ones for task='multilabel', but got \[0.0, 0.5\]"),
    ],
)
def test_labels_outside_the_classes_are_refused(task, labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(torch.tensor(labels), task, 5)
    check_labels(torch.tensor([0, 1, 1]), task, 5)
