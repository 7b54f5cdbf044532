"""Networks that answer for every pixel, or with boxes: exported, quantized and compared by a metric of their own."""

import pytest
import torch
from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.functional.classification import multiclass_jaccard_index

from lit_xai.export import export_model
from lit_xai.functional import quantize


class Segmenter(nn.Module):
    """Two heads of maps, of which the first is meant."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head, self.auxiliary = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.body(x)
        return {"aux": self.auxiliary(x), "mask": self.head(x)}


class Detector(nn.Module):
    """A box and a score for each cell of two scales."""

    def __init__(self):
        super().__init__()
        self.large = nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1), nn.ReLU())
        self.small = nn.Sequential(nn.Conv2d(8, 8, 3, 2, padding=1), nn.ReLU())
        self.heads = nn.ModuleList([nn.Conv2d(8, 5, 1), nn.Conv2d(8, 5, 1)])

    def forward(self, x):
        large = self.large(x)
        return [head(one) for head, one in zip(self.heads, (large, self.small(large)), strict=True)]


class Recall(Metric):
    """The share of the true boxes that a network's best cell overlaps: labels are dicts, one for each image."""

    higher_is_better = True

    def __init__(self):
        super().__init__()
        self.add_state("found", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, logits, targets):
        boxes, scores = logits[:, :4].flatten(2), logits[:, 4].flatten(1)
        for i, target in enumerate(targets):
            best = boxes[i, :, scores[i].argmax()]
            self.found += (target["boxes"] - best).abs().sum(1).lt(3).sum()
            self.total += len(target["boxes"])

    def compute(self):
        return self.found / self.total


def loader(labels):
    torch.manual_seed(0)
    return [(torch.rand(4, 3, 16, 16), labels()) for _ in range(3)]


def masks():
    return torch.randint(4, (4, 16, 16))


def boxes():
    return [{"boxes": torch.rand(n, 4), "labels": torch.zeros(n, dtype=torch.long)} for n in (1, 2, 3, 1)]


def exported(network, batches, folder, **options):
    torch.manual_seed(0)
    quantized = quantize(network.eval(), batches, output=options.get("output"), progress=False)
    report = export_model(network, batches, folder, quantized=quantized, program=False, progress=False, **options)
    return {row.name: row for row in report.rows}, report


def test_a_segmenters_table_has_its_intersection_over_union(tmp_path):
    network, batches = Segmenter(), loader(masks)
    rows, report = exported(network, batches, tmp_path, output="mask", metric=MulticlassJaccardIndex(4))
    assert report.metric == "MulticlassJaccardIndex"
    assert report.integer_operators
    expected = multiclass_jaccard_index(
        torch.cat([network(x)["mask"] for x, _ in batches]), torch.cat([y for _, y in batches]), 4
    )
    assert rows["fp32 (ONNX Runtime)"].metric == pytest.approx(float(expected), abs=1e-4)
    assert rows["int8 (ONNX Runtime)"].metric == pytest.approx(float(expected), abs=0.05)


@pytest.mark.parametrize("place", [None, 1])
def test_a_detectors_metric_takes_its_lists_of_boxes(tmp_path, place):
    network, batches = Detector(), loader(boxes)
    pick = {"output": 0, "metric": Recall(), "batch_to_target": place}
    rows, report = exported(network, batches, tmp_path, **pick)
    own = Recall()
    for x, y in batches:
        own.update(network(x)[0], y)
    assert rows["fp32 (ONNX Runtime)"].metric == pytest.approx(float(own.compute()))
    assert not any("no labels" in one for one in report.warnings)


def test_a_function_gets_all_labels_of_a_list(tmp_path):
    counted = []

    def images(logits, targets):
        counted.append((len(logits), len(targets)))
        return 0.5

    exported(Detector(), loader(boxes), tmp_path, output=0, metric=images)
    assert set(counted) == {(12, 12)}


def test_without_a_metric_boxes_are_no_labels(tmp_path):
    _, report = exported(Detector(), loader(boxes), tmp_path, output=0)
    assert any("no labels were found" in one for one in report.notes)


def test_a_metric_that_fails_is_named_with_what_it_was_given(tmp_path):
    with pytest.raises(ValueError, match=r"metric=MulticlassJaccardIndex failed on logits .*\[4, 5, 8, 8\].*boxes"):
        exported(Detector(), loader(boxes), tmp_path, output=0, metric=MulticlassJaccardIndex(4))
    assert not list(tmp_path.iterdir())
