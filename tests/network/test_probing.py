"""The same few samples from any kind of loader, and no generator or iterator changed."""

import random
from collections import Counter, namedtuple

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from refusals import refused
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
    default_collate,
)
from witness import digest, rng_state

from lit_xai.network.probing import Probe, choose_indices, fingerprint, read_probe, reads_by_index
from lit_xai.network.rows import take
from lit_xai.network.trees import leaves

IMAGES = torch.arange(40.0).reshape(20, 2)
LABELS = torch.tensor([0] * 14 + [1] * 5 + [2])
TENSORS = TensorDataset(IMAGES, LABELS)


class Pairs(Dataset):
    """A map-style dataset with its labels in the attribute of that name."""

    def __init__(self, attribute=None, labels=None, label=int):
        if attribute:
            setattr(self, attribute, LABELS.tolist() if labels is None else labels)
        self.label, self.read = label, Counter()

    def __len__(self):
        return 20

    def __getitem__(self, index):
        self.read[index] += 1
        return IMAGES[index], self.label(LABELS[index])


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(IMAGES[i], LABELS[i]) for i in range(20)])


class Augmented(Pairs):
    """Draws from every generator there is."""

    def __init__(self):
        super().__init__("targets")
        self.generator, self.numpy = torch.Generator().manual_seed(1), np.random.default_rng(1)

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(1) + self.numpy.random()
        return IMAGES[index] + noise + torch.rand(1, generator=self.generator), int(LABELS[index])


EVEN = [0, 14, 19, 1, 15, 2, 16, 3]


class TestChooseIndices:
    @pytest.mark.parametrize(
        "dataset",
        [
            TENSORS,
            Pairs("targets"),
            Pairs("labels", LABELS.numpy()),
            Pairs("targets", LABELS),
            Pairs("targets", [str(label) for label in LABELS]),
            Pairs("targets", {"a": 1}),
            Pairs("targets", LABELS[:5]),
            Pairs(),
        ],
        ids=["tensors", "targets", "labels", "tensor", "strings", "dict", "too few", "read"],
    )
    def test_classes_in_turn(self, dataset):
        assert choose_indices(dataset, Probe(n=8)) == EVEN
        assert choose_indices(dataset, Probe(n=99)) == [*EVEN, *(17, 4, 18, 5), *range(6, 14)]
        assert choose_indices(dataset, Probe(per_class=2)) == [0, 1, 14, 15, 19]

    def test_subsets(self):
        """Indices are those of the subset."""
        chosen = [19, 3, 14, 15, 0]
        for dataset in (TENSORS, Pairs("targets"), Pairs()):
            assert choose_indices(Subset(dataset, chosen), Probe(n=3)) == [1, 2, 0]
            assert choose_indices(Subset(Subset(dataset, chosen), [2, 1]), Probe(n=2)) == [1, 0]

    @pytest.mark.parametrize(
        "dataset", [Pairs(label=float), Pairs("targets", LABELS.float(), label=float), TensorDataset(IMAGES)]
    )
    def test_without_classes_the_first(self, dataset):
        assert choose_indices(dataset, Probe(n=5)) == [0, 1, 2, 3, 4]
        assert choose_indices(dataset, Probe(n=50)) == list(range(20))
        with refused("per_class expected integer labels", "n or indices"):
            choose_indices(dataset, Probe(per_class=2))

    def test_stored_labels_are_not_read(self):
        dataset = Pairs("targets")
        choose_indices(dataset, Probe(n=8))
        assert not dataset.read

    def test_labels_are_read_as_the_loader_would(self):
        """Of samples that the default collate function cannot handle."""

        class Sample:
            def __init__(self, index):
                self.index = index

        dataset = [Sample(i) for i in range(20)]

        def collate(samples):
            rows = [sample.index for sample in samples]
            return {"x": IMAGES[rows], "label": LABELS[rows]}

        assert choose_indices(dataset, Probe(n=8), collate) == EVEN
        batch, indices = read_probe(DataLoader(dataset, 4, collate_fn=collate), Probe(n=8))
        assert indices == EVEN
        assert torch.equal(batch["x"], IMAGES[EVEN])


def loaders():
    listed = DataLoader(TENSORS, batch_size=4, shuffle=True)
    yield "DataLoader", listed
    yield "uneven last batch", DataLoader(TENSORS, batch_size=7, drop_last=True)
    yield "targets", DataLoader(Pairs("targets"), batch_size=4)
    yield "list", [listed, DataLoader(TENSORS, batch_size=2)]
    yield "dict", {"a": listed, "b": None}
    yield "combined", CombinedLoader([listed])
    yield "combined dict", CombinedLoader({"a": listed, "b": listed}, "sequential")
    sampler = BatchSampler(RandomSampler(range(20)), 4, False)
    yield "batches by sampler", DataLoader(TENSORS, batch_size=None, sampler=sampler)
    yield "batch sampler", DataLoader(TENSORS, batch_sampler=sampler)


LOADERS = dict(loaders())


@pytest.mark.parametrize("name", LOADERS)
def test_read_by_index(name):
    (images, labels), indices = read_probe(LOADERS[name], Probe(n=8))
    assert indices == EVEN
    assert torch.equal(images, IMAGES[EVEN])
    assert torch.equal(torch.as_tensor(labels), LABELS[EVEN])
    (images, _), indices = read_probe(LOADERS[name], Probe(indices=np.array([7, 3])))
    assert (indices, type(indices[0])) == ([7, 3], int)
    assert torch.equal(images, IMAGES[[7, 3]])
    assert reads_by_index(LOADERS[name])


class TestStreams:
    @pytest.mark.parametrize(
        ("loader", "expected"),
        [
            (DataLoader(Stream(), batch_size=3), 6),
            (DataLoader(Stream(), batch_size=16), 6),
            ([(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])], 4),
            ([[IMAGES, LABELS]], 6),
            (((IMAGES, LABELS),), 6),
        ],
    )
    def test_from_the_beginning(self, loader, expected):
        (images, labels), rows = read_probe(loader, Probe(n=6))
        assert rows == list(range(expected))
        assert torch.equal(images, IMAGES[:expected])
        assert torch.equal(labels, LABELS[:expected])
        assert not reads_by_index(loader)

    def test_dict_batches(self):
        batch, rows = read_probe([{"x": IMAGES, "name": "a"}], Probe(n=3))
        assert torch.equal(batch["x"], IMAGES[:3])
        assert rows == [0, 1, 2]

    def test_datasets_of_batches(self):
        """With batch_size=None an item of the dataset is the batch, as it is for the training."""
        batches = [(IMAGES[:7].numpy(), LABELS[:7]), (IMAGES[7:].numpy(), LABELS[7:])]
        (images, _), rows = read_probe(DataLoader(batches, batch_size=None), Probe(n=3))
        assert torch.equal(images, IMAGES[:3])
        assert rows == [0, 1, 2]
        (images, _), rows = read_probe(DataLoader(batches, batch_size=None), Probe(indices=[5, 2]))
        assert torch.equal(images, IMAGES[[5, 2]])
        assert rows == [5, 2]

        class Batches(IterableDataset):
            def __iter__(self):
                return iter(batches)

        (images, _), rows = read_probe(DataLoader(Batches(), batch_size=None), Probe(n=3))
        assert torch.equal(images, IMAGES[:3])

    @pytest.mark.parametrize(
        ("loader", "probe", "parts"),
        [
            (DataLoader(Stream()), Probe(indices=[1]), ["indices expected a dataset with an index"]),
            (DataLoader(Stream()), Probe(per_class=1), ["per_class expected a dataset of single samples"]),
            ([(IMAGES, LABELS)], Probe(per_class=1), ["per_class expected a dataset of single samples"]),
            (DataLoader([(IMAGES, LABELS)], batch_size=None), Probe(indices=[20]), ["indices expected 0 to 19", "20"]),
        ],
    )
    def test_refused(self, loader, probe, parts):
        with refused("probe", *parts):
            read_probe(loader, probe)

    def test_what_can_be_read_once_stays_unread(self):
        loader = iter([(IMAGES, LABELS)])
        with refused("probe: the loader can be read only once"):
            read_probe(loader, Probe())
        assert next(loader)[0] is IMAGES


class TestNothingMoves:
    @pytest.mark.parametrize("dataset", [TENSORS, Pairs(), Augmented(), Stream()])
    def test_generators_and_the_loaders_iterator(self, dataset):
        shuffle = not isinstance(dataset, IterableDataset)

        def rest(probes):
            torch.manual_seed(0), np.random.seed(0), random.seed(0)
            loader = DataLoader(dataset, batch_size=4, shuffle=shuffle, generator=torch.Generator().manual_seed(0))
            batches = iter(loader)
            found = [next(batches)]
            for _ in range(probes):
                read_probe(loader, Probe(n=8))
            return digest([[[*batch] for batch in (*found, *batches)], rng_state()])

        if isinstance(dataset, Augmented):
            dataset.generator.manual_seed(1)
            dataset.numpy = np.random.default_rng(1)
            without = rest(0)
            dataset.generator.manual_seed(1)
            dataset.numpy = np.random.default_rng(1)
        else:
            without = rest(0)
        assert rest(2) == without

    def test_random_augmentation_comes_out_the_same(self):
        dataset = Augmented()
        loader = DataLoader(dataset, batch_size=4)
        first = fingerprint(read_probe(loader, Probe())[0])
        torch.rand(3)
        assert fingerprint(read_probe(loader, Probe())[0]) == first
        assert fingerprint(read_probe(loader, Probe(), seed=1)[0]) != first


@pytest.mark.parametrize(
    ("loader", "probe", "parts"),
    [
        (None, Probe(), ["there is no loader"]),
        ([], Probe(), ["there is no loader"]),
        ({}, Probe(), ["there is no loader"]),
        (DataLoader([]), Probe(), ["empty"]),
        (DataLoader(TensorDataset(IMAGES[:0], LABELS[:0])), Probe(), ["empty"]),
        (DataLoader(TENSORS), Probe(indices=[20]), ["indices expected 0 to 19, but got 20"]),
        (DataLoader(TENSORS), Probe(indices=[0, -1]), ["indices expected 0 to 19, but got -1"]),
    ],
)
def test_refused(loader, probe, parts):
    with refused("probe", *parts):
        read_probe(loader, probe)


@pytest.mark.parametrize(
    "given",
    [{"n": 0}, {"n": -1}, {"per_class": 0}, {"indices": []}, {"loader": "training"}, {"per_class": 1, "indices": [1]}],
)
def test_probe_refused(given):
    with refused("probe", next(iter(given))):
        Probe(**given)


class TestTake:
    def test_structures(self):
        pair = namedtuple("pair", ["image", "label"])
        found = take(pair(IMAGES, [LABELS, "a"]), [3, 1], 20)
        assert type(found) is pair
        assert torch.equal(found.image, IMAGES[[3, 1]])
        assert torch.equal(found.label[0], LABELS[[3, 1]])
        assert found.label[1] == "a"
        assert take({"scale": torch.tensor(1.0), "none": None}, [0], 20) == {"scale": torch.tensor(1.0), "none": None}

    def test_leaves_are_named_by_their_place(self):
        assert [name for name, _ in leaves(({"a": IMAGES, "b": [LABELS, 3]}, None, LABELS))] == ["0.a", "0.b.0", "2"]
        assert [name for name, _ in leaves(IMAGES)] == [""]


class TestFingerprint:
    SAME = [IMAGES, IMAGES.clone(), IMAGES.t().contiguous().t(), IMAGES.requires_grad_(False)]
    OTHERS = [
        IMAGES.double(),
        IMAGES.reshape(2, 20),
        IMAGES.flip(0),
        (IMAGES,),
        {"x": IMAGES},
        IMAGES.clone().index_fill_(0, torch.tensor([7]), 1e-8),
        IMAGES.bfloat16(),
        torch.zeros(0, 2),
        torch.tensor(0.0),
        LABELS,
        LABELS.bool(),
    ]

    def test_equal_if_and_only_if_the_samples_are(self):
        prints = {fingerprint(value) for value in self.SAME}
        assert len(prints) == 1
        assert len(prints | {fingerprint(value) for value in self.OTHERS}) == 1 + len(self.OTHERS)

    def test_stays_what_it_is(self):
        """It is written into checkpoints, so that a later version has to find the same."""
        assert fingerprint({"x": torch.arange(6.0).reshape(2, 3)}) == "84e326d2931bf631"


def test_samples_that_are_whole_batches_have_no_class_each():
    batches = [{"x": torch.rand(8, 3), "label": torch.arange(8) % 3} for _ in range(4)]
    loader = DataLoader(batches, collate_fn=lambda found: found[0])
    batch, indices = read_probe(loader, Probe(n=8))
    assert batch["x"] is batches[0]["x"]
    assert indices == [0, 1, 2, 3]


def test_collated_like_the_loader():
    def collate(samples):
        return default_collate(samples)[0] * 2

    batch, _ = read_probe(DataLoader(TENSORS, batch_size=4, collate_fn=collate), Probe(n=8))
    assert torch.equal(batch, IMAGES[EVEN] * 2)
