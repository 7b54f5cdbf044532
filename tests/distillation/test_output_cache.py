"""A remembered output is the very one, an unknown sample is never mistaken for a known one."""

import errno
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from networks import STATES, Shared, cnn, mlp
from refusals import refused
from sklearn.datasets import load_digits
from torch import nn
from witness import digest, rng_state

from lit_xai.distillation.output_cache import OutputCache, module_hash, sample_keys


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(x):
    """The keys of 32-bit samples in Python's own integers, but for what the structure adds."""
    bits = np.random.PCG64(1).random_raw(2 * x[0].numel()).tolist()
    for sample in x.reshape(len(x), -1).view(torch.int32).tolist():
        first, second = (sum(w * f for w, f in zip(sample, bits[k::2], strict=True)) % 2**64 for k in (0, 1))
        yield first >> 32 << 32 | second >> 32


@pytest.mark.parametrize("length", [1, 12, 512, 1300])
def test_keys_are_the_published_hash(length):
    x = drawn(5, length)
    found = [key % 2**64 for key in sample_keys(x).tolist()]
    (added,) = {key ^ expected for key, expected in zip(found, by_hand(x), strict=True)}  # the same of all
    assert added


def test_keys_are_the_same_in_another_process():
    # A cache file outlives the process, so the numbers must: a change of these wants another VERSION.
    code = (
        "import torch; from lit_xai.distillation.output_cache import sample_keys;"
        "print(sample_keys(torch.arange(6.).reshape(2, 3)).tolist())"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert found.stdout.strip() == str(sample_keys(torch.arange(6.0).reshape(2, 3)).tolist()) == PINNED


PINNED = "[-2523199999133711460, -1777904377875138022]"


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
DTYPES += [torch.uint8, torch.bool, torch.complex64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5), (3, 4, 4)])
def test_keys_depend_on_the_sample_alone(dtype, shape):
    x = (drawn(9, *shape) * 50).to(dtype)
    keys = sample_keys(x)
    assert keys.shape == (9,)
    assert keys.dtype is torch.int64
    order = torch.tensor([7, 2, 2, 5])
    assert torch.equal(sample_keys(x[order]), keys[order])
    assert torch.equal(sample_keys(x[3:]), keys[3:])  # no longer aligned
    assert torch.equal(sample_keys(x[8:]), keys[8:])
    assert torch.equal(sample_keys(x[::2]), keys[::2])
    if len({tuple(row) for row in x.reshape(9, -1).tolist()}) == 9:
        assert len(set(keys.tolist())) == 9


def test_layout_does_not_matter():
    x = drawn(4, 3, 6, 6)
    keys = sample_keys(x)
    assert torch.equal(sample_keys(x.to(memory_format=torch.channels_last)), keys)
    assert torch.equal(sample_keys(x.transpose(2, 3).contiguous().transpose(2, 3)), keys)
    assert torch.equal(
        sample_keys(drawn(4, 1, 1, 1).expand(4, 3, 6, 6)),
        sample_keys(drawn(4, 1, 1, 1).expand(4, 3, 6, 6).contiguous()),
    )
    assert torch.equal(sample_keys(x.clone().requires_grad_()), keys)
    with torch.inference_mode():
        assert torch.equal(sample_keys(x.clone()), keys)


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (0,), (0, 2, 2), (2, 0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_nothing_has_keys_too(shape, dtype):
    assert sample_keys(torch.zeros(shape, dtype=dtype)).shape == shape[:1]


def test_dtype_shape_and_place_matter():
    x = torch.zeros(2, 4)
    variants = [x, x.half(), x.int(), x[:, :3], x.reshape(2, 2, 2), (x,), {"x": x}, {"y": x}, (x, 1), (x, 2)]
    variants += [(x, None), (x, "a"), (x, x), ((x,), x), {"x": x, "scale": torch.ones(())}, {"x": x, "mask": None}]
    variants += [(x, np.zeros(5000)), (x, np.arange(5000)), (x, torch.zeros(5, 4)), (x, torch.ones(5, 4))]
    variants += [(x, np.where(np.arange(5000) == 2500, 1.0, 0.0)), -x]
    firsts = [sample_keys(variant)[0].item() for variant in variants]
    assert len(set(firsts)) == len(variants)


def test_dicts_and_tuples_by_sample():
    x, tokens = drawn(4, 3), torch.arange(8).reshape(4, 2)
    scale = torch.tensor(2.0)
    for inputs in ((x, tokens, scale, "sum"), {"x": x, "tokens": tokens, "scale": scale, "mode": "sum"}):
        keys = sample_keys(inputs)
        flipped = [v.flip(0) if isinstance(v, torch.Tensor) and v.dim() else v for v in (x, tokens, scale, "sum")]
        again = tuple(flipped) if isinstance(inputs, tuple) else dict(zip(inputs, flipped, strict=True))
        assert torch.equal(sample_keys(again), keys.flip(0))
    moved = tokens.clone()
    moved[2] += 1
    assert (sample_keys((x, moved)) == sample_keys((x, tokens))).tolist() == [True, True, False, True]
    assert not (sample_keys((x, scale)) == sample_keys((x, scale + 1))).any()


def test_inputs_without_rows_are_refused():
    for inputs in ((), {}, ("a", 3), torch.tensor(1.0)):
        with refused("sample_keys", "one row per sample"):
            sample_keys(inputs)


def distinct(x):
    """How many samples there are, by their bytes."""
    return len({sample.tobytes() for sample in x.reshape(len(x), -1).numpy()})


EYE = torch.eye(3 * 16 * 16).reshape(-1, 3, 16, 16)
PAIRS = EYE.flatten(2).repeat_interleave(2, 2)
BASE = drawn(768)

PATHOLOGICAL = {
    "one pixel": torch.cat([EYE, -EYE, EYE * 2, EYE * 2.0**-126, EYE[:1] * 0]),
    "doubled pixels": torch.cat([PAIRS, PAIRS * 2, -PAIRS]),
    "signs of zero": torch.where(drawn(3000, 768) < 0, -0.0, 0.0),
    "permuted pixels": BASE[drawn(3000, 768, seed=1).argsort(1)],
    "rolled pixels": torch.stack([BASE.roll(k) for k in range(768)]),
    "one swap": torch.stack([BASE.index_copy(0, torch.tensor([0, k]), BASE[[k, 0]]) for k in range(768)]),
    "black and white": (torch.arange(65536)[:, None] >> torch.arange(16) & 1).float(),
    "integers": torch.arange(65536)[:, None],
    "two bytes": torch.stack([torch.arange(65536) // 256, torch.arange(65536) % 256], 1).to(torch.uint8),
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_pathological_inputs_do_not_collide(name):
    x = PATHOLOGICAL[name]
    assert len(set(sample_keys(x).tolist())) == distinct(x)


def test_images_do_not_collide():
    images = torch.from_numpy(load_digits().images)
    for x in (images, images.float(), images.to(torch.uint8), (images / 16).half()):
        shifted = torch.cat([x.roll((i, j), (1, 2)) for i in range(8) for j in range(8)])
        assert len(set(sample_keys(shifted).tolist())) == distinct(shifted)


def test_keys_move_no_random_state():
    network, x = cnn(), drawn(2, 3, 5, 7)
    before = digest(rng_state())
    sample_keys(x)
    module_hash(network)
    assert digest(rng_state()) == before


def test_module_hash_is_of_values_and_kinds():
    network = cnn()
    found = module_hash(network)
    assert found == module_hash(cnn()) == module_hash(cnn().train())
    assert found == module_hash(cnn().to(memory_format=torch.channels_last))
    assert found == module_hash(torch.compile(cnn(), backend="eager"))
    assert len(found) == 16
    assert int(found, 16) >= 0
    assert len({module_hash(n) for n in (network, mlp(), Shared(), cnn().double(), cnn().bfloat16())}) == 5
    with torch.no_grad():
        network[1].running_mean[0] += 1e-6
    assert module_hash(network) != found
    assert module_hash(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) != module_hash(nn.Linear(2, 2))
    torch.manual_seed(0)
    linear = nn.Linear(2, 2)
    assert module_hash(nn.Sequential(linear, nn.ReLU())) != module_hash(nn.Sequential(linear, nn.GELU()))


def test_module_hash_sees_buffers_that_are_not_saved():
    network = nn.Module()
    network.register_buffer("mask", torch.zeros(2), persistent=False)
    before = module_hash(network)
    network.mask += 1
    assert module_hash(network) != before


@pytest.mark.parametrize("state", STATES)
def test_module_hash_of_every_state_is_stable(state):
    network = STATES[state]()
    assert module_hash(network) == module_hash(network)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("tail", [(), (1,), (10,), (3, 4, 4)])
def test_hits_are_bit_identical_in_another_order_and_batch_size(dtype, tail):
    x, values = drawn(23, 2, 4, 4), drawn(23, *tail, seed=1).to(dtype)
    cache = OutputCache("a1b2")
    for rows in torch.arange(23).split(5):
        cache.add(sample_keys(x[rows]), values[rows])
    for rows in torch.randperm(23).split(7):
        found = cache.lookup(sample_keys(x[rows]))
        assert found.dtype is dtype
        assert torch.equal(
            found.view(torch.uint8) if tail else found, values[rows].view(torch.uint8) if tail else values[rows]
        )
    assert (len(cache), cache.hits, cache.misses) == (23, 23, 0)


def test_augmented_and_partly_known_batches_miss():
    x, values = drawn(6, 2, 4, 4), drawn(6, 3)
    cache = OutputCache("a1b2")
    assert cache.lookup(sample_keys(x)) is None
    cache.add(sample_keys(x), values)
    assert cache.lookup(sample_keys(x.flip(3))) is None
    assert cache.lookup(sample_keys(torch.cat([x[:2], x[2:4] + 1e-6]))) is None
    assert torch.equal(cache.lookup(sample_keys(x[1:3])), values[1:3])
    assert (cache.hits, cache.misses) == (2, 6 + 6 + 4)


def test_repeated_samples_are_kept_once_and_the_first_stays():
    x, values = drawn(3, 2), torch.arange(6.0).reshape(6, 1)
    cache = OutputCache("a1b2")
    cache.add(sample_keys(torch.cat([x, x])), values)
    cache.add(sample_keys(x), values[:3] + 100)
    assert len(cache) == 3
    assert torch.equal(cache.lookup(sample_keys(torch.cat([x, x]))), values[[0, 1, 2, 0, 1, 2]])


def test_what_is_stored_and_what_is_returned_are_copies():
    x, values = drawn(3, 2), torch.ones(3, 4).requires_grad_() * 1
    cache = OutputCache("a1b2")
    cache.add(sample_keys(x), values)
    values.data.zero_()
    found = cache.lookup(sample_keys(x))
    assert not found.requires_grad
    found.zero_()
    assert (cache.lookup(sample_keys(x)) == 1).all()


def test_what_inference_mode_stored_can_be_learnt_from():
    x, cache = drawn(3, 2), OutputCache("a1b2")
    with torch.inference_mode():
        cache.add(sample_keys(x), torch.ones(3, 4))
    cache.add(sample_keys(x + 1), torch.ones(3, 4))
    weight = torch.ones(4, requires_grad=True)
    (weight * cache.lookup(sample_keys(x))).sum().backward()
    with torch.inference_mode():
        found = cache.lookup(sample_keys(x))
    assert found.sum() == 12


def test_memory_grows_by_doubling():
    cache, x = OutputCache("a1b2"), drawn(1000, 2)
    sizes = set()
    for rows in torch.arange(1000).split(1):
        cache.add(sample_keys(x[rows]), x[rows])
        sizes.add(len(cache._values))
    assert len(sizes) < 12
    assert torch.equal(cache.lookup(sample_keys(x)), x)


def test_other_outputs_are_refused():
    x, cache = drawn(3, 2), OutputCache("a1b2")
    cache.add(sample_keys(x[:2]), torch.ones(2, 4))
    for values, word in ((torch.ones(1, 5), "precision"), (torch.ones(1, 4).half(), "precision"), (x, "row per key")):
        with refused("values", word):
            cache.add(sample_keys(x[2:]), values)
    assert len(cache) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_file_round_trip(tmp_path, dtype):
    path, x, values = tmp_path / "deep" / "cache.npz", drawn(9, 2), drawn(9, 3, seed=1).to(dtype)
    cache = OutputCache("a1b2", path)
    cache.save()
    assert not path.exists()
    cache.add(sample_keys(x[:5]), values[:5])
    cache.save()
    fresh = OutputCache("a1b2", path)
    fresh.add(sample_keys(x[5:]), values[5:])
    fresh.save()
    last = OutputCache("a1b2", path)
    found = last.lookup(sample_keys(x.flip(0)))
    assert found.dtype is dtype
    assert torch.equal(found, values.flip(0))
    assert (len(last), last.hits, last.misses) == (9, 9, 0)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    last.save()
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert sorted(p.name for p in path.parent.iterdir()) == [".cache.npz.lock", "cache.npz"]
    OutputCache("a1b2").save()


def test_outputs_that_are_not_finite_are_not_remembered():
    x, values = drawn(4, 2), torch.tensor([1.0, torch.nan, -torch.inf, 2.0])
    for shaped in (values, values[:, None], values[:, None].half()):
        cache = OutputCache("a1b2")
        cache.add(sample_keys(x), shaped)
        assert len(cache) == 2
        assert cache.lookup(sample_keys(x)) is None
        assert torch.equal(cache.lookup(sample_keys(x[[3, 0]])), shaped[[3, 0]])


# --- several processes, and disks that do not take it -----------------------------------------------------------------


def test_two_runs_share_a_file(tmp_path):
    path, x, values = tmp_path / "cache.npz", drawn(150, 2), drawn(150, 3, seed=1)
    first, second = OutputCache("a1b2", path), OutputCache("a1b2", path)
    first.add(sample_keys(x[:100]), values[:100])
    second.add(sample_keys(x[90:]), values[90:])
    first.save()
    second.save()
    assert torch.equal(OutputCache("a1b2", path).lookup(sample_keys(x)), values)
    assert torch.equal(second.lookup(sample_keys(x)), values)  # what the other run found spares the teacher here too


def test_two_threads_that_save_all_the_time_lose_nothing(tmp_path):
    path = tmp_path / "cache.npz"
    caches = [OutputCache("a1b2", path) for _ in range(2)]

    def fill(n):
        for i in range(25):
            caches[n].add(torch.tensor([1000 * n + i]), torch.full((1, 3), 1.0 * i))
            caches[n].save()

    threads = [threading.Thread(target=fill, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            OutputCache("a1b2", path)  # whole at any moment
    assert len(OutputCache("a1b2", path)) == 50
    assert sorted(p.name for p in tmp_path.iterdir()) == [".cache.npz.lock", "cache.npz"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_does_not_take_it_is_a_warning_once(code, tmp_path, monkeypatch):
    path, x = tmp_path / "cache.npz", drawn(4, 2)
    cache = OutputCache("a1b2", path)
    cache.add(sample_keys(x[:2]), x[:2])
    cache.save()
    before = path.read_bytes()

    def broken(file, **_):
        file.write(b"half")
        raise OSError(code, "No")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", broken)
        cache.add(sample_keys(x[2:3]), x[2:3])
        with pytest.warns(UserWarning, match=r"^cache=.* could not be written, .* in memory alone: .* No\.$"):
            cache.save()
        cache.save()  # a warning is an error here
    assert path.read_bytes() == before
    assert torch.equal(cache.lookup(sample_keys(x[:3])), x[:3])
    cache.save()  # the disk has room again
    assert len(OutputCache("a1b2", path)) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [".cache.npz.lock", "cache.npz"]


def test_a_file_that_others_replaced_is_left_alone(tmp_path):
    path, x = tmp_path / "cache.npz", drawn(4, 2)
    for what in ("another teacher", "another precision", "damaged"):
        cache = OutputCache("a1b2", path)
        cache.add(sample_keys(x), x)
        if what == "damaged":
            path.write_bytes(b"PK")
        else:
            other = OutputCache("c3d4" if what == "another teacher" else "a1b2", path)
            other.add(sample_keys(x), x.half())
            other.save()
        before = path.read_bytes()
        with pytest.warns(UserWarning, match="could not be written"):
            cache.save()
        assert path.read_bytes() == before
        path.unlink()


def test_a_new_file_where_none_can_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with refused("cache=", "expected a folder that can be written to", "file"):
        OutputCache("a1b2", tmp_path / "file" / "cache.npz")
