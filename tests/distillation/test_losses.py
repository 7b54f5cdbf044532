"""Losses against torch's own, NumPy in float64 and closed forms; what they are invariant to; what they refuse."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Categorical
from torch.distributions import kl_divergence as torch_kl

from lit_xai.distillation import losses as distillation
from lit_xai.distillation.losses import (
    FEATURE_LOSSES,
    LOSSES,
    attention_transfer,
    check_logits,
    decoupled_kl_divergence,
    hint,
    huber,
    kl_divergence,
    l1,
    l2,
)

CLOSE = {"rtol": 1e-6, "atol": 1e-6}
SHAPES = {"classes": (6, 5), "two": (6, 2), "segmentation": (2, 4, 3, 5), "sequence": (2, 3, 7)}


def pair(*shape, scale=3.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale for _ in range(2))
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def labels(shape, classes, class_dim=1):
    per_sample = [size for dim, size in enumerate(shape) if dim != class_dim % len(shape)]
    return torch.randint(classes, per_sample, generator=torch.Generator().manual_seed(1))


def call(name, student, teacher, **options):
    if name == "decoupled_kl_divergence":
        classes = 2 if student.dim() == 1 or student.shape[1] == 1 else student.shape[1]
        options["target"] = labels((len(student), classes), classes)
    return LOSSES[name](student, teacher, **options)


# Against others


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_kl_as_torch_has_it(shape, temperature):
    student, teacher = pair(*shape)
    logs = [(z / temperature).log_softmax(1) for z in (student, teacher)]
    expected = F.kl_div(*logs, reduction="sum", log_target=True) * shape[1] / student.numel()
    distributions = [Categorical(logits=z.movedim(1, -1) / temperature) for z in (teacher, student)]
    found = kl_divergence(student, teacher, temperature=temperature)
    torch.testing.assert_close(found, expected, **CLOSE)
    torch.testing.assert_close(found, torch_kl(*distributions).mean(), **CLOSE)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("shape", [(7,), (7, 1), (2, 1, 3, 3)])
def test_one_output_is_a_binary_task(shape, temperature):
    student, teacher = pair(*shape)
    expected = torch_kl(Bernoulli(logits=teacher / temperature), Bernoulli(logits=student / temperature)).mean()
    torch.testing.assert_close(kl_divergence(student, teacher, temperature=temperature), expected, **CLOSE)
    if student.dim() < 3:
        torch.testing.assert_close(kl_divergence(student, teacher.view(7, 1), temperature=temperature), expected)
        torch.testing.assert_close(
            kl_divergence(student.view(7, 1), teacher.view(7), temperature=temperature), expected
        )


def decoupled_in_numpy(student, teacher, target, temperature, target_weight, nontarget_weight):
    def softmax(z):
        e = np.exp(z - z.max())
        return e / e.sum()

    total = 0.0
    for s, t, k in zip(student, teacher, target, strict=True):
        p, q = softmax(t / temperature), softmax(s / temperature)
        total += target_weight * (p[k] * np.log(p[k] / q[k]) + (1 - p[k]) * np.log((1 - p[k]) / (1 - q[k])))
        p, q = (softmax(np.delete(z, k) / temperature) for z in (t, s))
        total += nontarget_weight * (p * np.log(p / q)).sum()
    return total / len(student)


@pytest.mark.parametrize("weights", [(1.0, 8.0), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_decoupled_as_in_numpy(classes, temperature, weights):
    student, teacher = pair(6, classes)
    target = labels(student.shape, classes)
    found = decoupled_kl_divergence(
        student, teacher, target, temperature=temperature, target_weight=weights[0], nontarget_weight=weights[1]
    )
    arrays = student.detach().numpy(), teacher.numpy(), target.numpy()
    expected = decoupled_in_numpy(*arrays, temperature, *weights)
    torch.testing.assert_close(found.item(), float(expected), **CLOSE)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(
    ("shape", "class_dim"), [((6, 5), 1), ((6, 2), 1), ((6, 1), 1), ((2, 4, 3, 5), 1), ((2, 3, 7), -1), ((2, 3, 7), -2)]
)
def test_parts_add_up_to_kl(shape, class_dim, temperature):
    student, teacher = pair(*shape)
    pair_of_logits = distillation._class_logits(student, teacher, temperature, class_dim)
    of_student, of_teacher = pair_of_logits
    target = labels(of_student.shape, of_student.shape[class_dim], class_dim)
    index = distillation._target_index(target, of_student, class_dim)
    others = 1 - of_teacher.softmax(class_dim).gather(class_dim, index).squeeze(class_dim)
    among_two = distillation._target_part(of_student, of_teacher, index, class_dim)
    among_others = distillation._nontarget_part(of_student, of_teacher, index, class_dim)
    expected = distillation._divergence(*(z.log_softmax(class_dim) for z in pair_of_logits), class_dim)
    torch.testing.assert_close(among_two + others * among_others, expected, rtol=1e-9, atol=1e-12)
    assert (among_two >= 0).all()
    found = decoupled_kl_divergence(student, teacher, target, temperature=temperature, class_dim=class_dim)
    torch.testing.assert_close(found, (among_two + 8 * among_others).mean())


def test_two_classes_have_no_second_part():
    student, teacher = pair(6, 2)
    target = labels(student.shape, 2)
    torch.testing.assert_close(decoupled_kl_divergence(student, teacher, target), kl_divergence(student, teacher))
    assert decoupled_kl_divergence(student, teacher, target, target_weight=0.0) == 0


@pytest.mark.parametrize("shape", [(6, 5), (7,), (2, 4, 3)])
def test_distances_in_closed_form(shape):
    student, teacher = pair(*shape)
    gap = np.abs(student.detach().numpy() - teacher.numpy())
    torch.testing.assert_close(l1(student, teacher).item(), float(gap.mean()), **CLOSE)
    torch.testing.assert_close(l2(student, teacher).item(), float((gap**2).mean()), **CLOSE)
    torch.testing.assert_close(hint(student, teacher).item(), float((gap**2).mean()), **CLOSE)
    expected = np.where(gap < 2, gap**2 / 2, 2 * (gap - 1)).mean()
    torch.testing.assert_close(huber(student, teacher, delta=2.0).item(), float(expected), **CLOSE)


@pytest.mark.parametrize("distance", [l1, l2, huber])
def test_never_broadcasts(distance):
    student, teacher = pair(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of (4,) against (4, 1), and takes 16 differences
        torch.testing.assert_close(distance(student, teacher[:, None]), distance(student, teacher))
        torch.testing.assert_close(distance(student[:, None], teacher), distance(student, teacher))
    with pytest.raises(ValueError, match="The teacher gives 3 outputs per sample, but the student 1:"):
        distance(torch.zeros(4, 1), torch.zeros(4, 3))


def pooled_in_numpy(maps, size):
    for axis, out in enumerate(size, start=1):
        n = maps.shape[axis]
        bins = [range(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]
        maps = np.stack([maps.take(list(b), axis).mean(axis) for b in bins], axis)
    return maps


def attention_in_numpy(student, teacher, channel_dim):
    maps = [(x**2).mean(channel_dim) for x in (student, teacher)]
    size = np.minimum(maps[0].shape[1:], maps[1].shape[1:])
    maps = (pooled_in_numpy(m, size).reshape(len(m), -1) for m in maps)
    of_student, of_teacher = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps)
    return ((of_student - of_teacher) ** 2).mean()


FEATURES = {
    "same": ((3, 4, 5, 6), (3, 4, 5, 6), 1),
    "wider teacher": ((3, 4, 5, 6), (3, 9, 5, 6), 1),
    "smaller student": ((3, 4, 2, 3), (3, 9, 4, 6), 1),
    "smaller teacher": ((3, 4, 7, 7), (3, 4, 3, 3), 1),
    "smaller in one each": ((3, 4, 5, 7), (3, 4, 7, 3), 1),
    "series": ((3, 4, 10), (3, 2, 4), 1),
    "volumes": ((3, 2, 4, 3, 5), (3, 2, 2, 2, 2), 1),
    "tokens": ((3, 7, 4), (3, 7, 8), -1),
    "fewer tokens": ((3, 5, 4), (3, 7, 8), 2),
}


def features(name):
    student, teacher, channel_dim = FEATURES[name]
    return pair(*student)[0], pair(*teacher, seed=1)[1], channel_dim


@pytest.mark.parametrize("name", FEATURES)
def test_attention_as_in_numpy(name):
    student, teacher, channel_dim = features(name)
    expected = attention_in_numpy(student.detach().numpy(), teacher.numpy(), channel_dim)
    found = attention_transfer(student, teacher, channel_dim=channel_dim)
    torch.testing.assert_close(found.item(), float(expected), **CLOSE)
    assert found > 1e-4


# Gradients


@pytest.mark.parametrize("shape", [(4, 3), (4,), (4, 1)])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name, shape):
    student, teacher = pair(*shape)
    assert torch.autograd.gradcheck(lambda z: call(name, z, teacher), student)


@pytest.mark.parametrize("name", FEATURES)
def test_gradients_of_attention(name):
    student, teacher, channel_dim = features(name)
    assert torch.autograd.gradcheck(lambda x: attention_transfer(x, teacher, channel_dim=channel_dim), student)


def test_gradients_of_hint():
    student, teacher = pair(2, 3, 2)
    assert torch.autograd.gradcheck(lambda x: hint(x, teacher), student)


@pytest.mark.parametrize("name", ["kl_divergence", "decoupled_kl_divergence"])
@pytest.mark.parametrize("shape", [(4, 3), (4,)])
def test_second_gradients(name, shape):
    student, teacher = pair(*shape)
    assert torch.autograd.gradgradcheck(lambda z: call(name, z, teacher, temperature=2.0), student)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(8, 100), (8, 2), (8,), (8, 1)])
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_to_learn_from_oneself(name, shape, dtype):
    student = pair(*shape, scale=10.0, dtype=dtype)[0]
    loss = call(name, student, student.detach().clone())
    loss.backward()
    assert loss == 0
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_no_features_to_learn_from_oneself(name):
    student = pair(4, 8, 5, 5, dtype=torch.float32)[0]
    loss = FEATURE_LOSSES[name](student, student.detach().clone())
    loss.backward()
    assert loss == 0
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("name", [*LOSSES, *FEATURE_LOSSES])
def test_teacher_has_no_gradient(name):
    student, teacher = pair(4, 3, 2) if name in FEATURE_LOSSES else pair(4, 3)
    teacher.requires_grad_()
    loss = FEATURE_LOSSES[name](student, teacher) if name in FEATURE_LOSSES else call(name, student, teacher)
    loss.backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


def test_kl_gradient_in_closed_form():
    student, teacher = pair(6, 5)
    kl_divergence(student, teacher, temperature=4.0).backward()
    expected = ((student / 4).softmax(1) - (teacher / 4).softmax(1)) / (4 * 6)
    torch.testing.assert_close(student.grad, expected.detach())


# Invariants


@pytest.mark.parametrize("name", ["kl_divergence", "decoupled_kl_divergence"])
def test_constant_per_sample_does_not_matter(name):
    student, teacher = pair(6, 5)
    shift = torch.arange(6.0)[:, None] * 10
    torch.testing.assert_close(call(name, student + shift, teacher - 3 * shift), call(name, student, teacher))


def test_kl_is_no_distance():
    student, teacher = pair(6, 5)
    assert kl_divergence(student, teacher) > 0
    assert not torch.isclose(kl_divergence(student, teacher), kl_divergence(teacher, student))


@pytest.mark.parametrize("name", FEATURES)
def test_scale_of_a_sample_does_not_matter_to_attention(name):
    student, teacher, channel_dim = features(name)
    scale = torch.tensor([0.01, 1.0, 300.0]).view(3, *[1] * (student.dim() - 1))
    expected = attention_transfer(student, teacher, channel_dim=channel_dim)
    torch.testing.assert_close(attention_transfer(student * scale, teacher, channel_dim=channel_dim), expected)
    torch.testing.assert_close(attention_transfer(student, -teacher * scale, channel_dim=channel_dim), expected)


def test_class_dim_is_only_a_place():
    student, teacher = pair(2, 7, 4)
    target = labels(student.shape, 7)
    moved = student.movedim(1, -1), teacher.movedim(1, -1)
    torch.testing.assert_close(kl_divergence(*moved, class_dim=-1), kl_divergence(student, teacher))
    torch.testing.assert_close(
        decoupled_kl_divergence(*moved, target, class_dim=2), decoupled_kl_divergence(student, teacher, target)
    )
    rows = [z.reshape(-1, 7) for z in moved]
    torch.testing.assert_close(kl_divergence(*rows), kl_divergence(student, teacher))


@pytest.mark.parametrize("classes", [2, 10])
def test_very_hot_is_half_the_squared_difference(classes):
    student, teacher = pair(6, classes)
    gap = student - teacher
    expected = (gap - gap.mean(1, keepdim=True)).square().mean() / 2
    found = 1e4**2 * kl_divergence(student, teacher, temperature=1e4)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


# Numbers of all kinds


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("teacher_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_comes_out_whole(name, dtype, teacher_dtype, autocast):
    values = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]])
    student = values.to(dtype).requires_grad_()
    teacher = values.flip(1).to(teacher_dtype)
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        loss = call(name, student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_half_precision_features_come_out_whole(name, dtype):
    student, teacher = pair(2, 3, 4, 4, scale=1e3, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = FEATURE_LOSSES[name](student, teacher)
    loss.backward()
    expected = FEATURE_LOSSES[name](student.double(), teacher.double())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_float64_stays(name):
    student, teacher = pair(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert call(name, student, teacher).dtype == torch.float64
        assert call(name, student, teacher.float()).dtype == torch.float64


def test_classes_masked_out_by_both_do_not_count():
    student, teacher = pair(6, 5)
    target = labels((6, 4), 4)
    masked = [F.pad(z, (0, 2), value=-torch.inf) for z in (student, teacher)]
    torch.testing.assert_close(kl_divergence(*masked), kl_divergence(student, teacher))
    found = decoupled_kl_divergence(*masked, target)
    torch.testing.assert_close(found, decoupled_kl_divergence(student, teacher, target))
    (kl_divergence(*masked) + found).backward()
    assert student.grad.isfinite().all()


def test_features_of_zeros_have_finite_gradients():
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    attention_transfer(student, torch.rand(2, 3, 4, 4)).backward()
    assert student.grad.isfinite().all()


# What is refused


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((8, 10), (8, 100), "The teacher gives 100 outputs per sample, but the student 10: use a teacher of the same"),
        ((8,), (8, 2), "The teacher gives 2 outputs per sample, but the student 1:"),
        ((8, 1), (8, 1, 1, 1), "The teacher gives 1 x 1 x 1 outputs per sample, but the student 1:"),
        ((2, 21, 8, 8), (2, 21, 16, 16), "The teacher gives 21 x 16 x 16 outputs per sample, but the student 21 x 8 x"),
        ((8, 10), (4, 10), "The teacher gives outputs for 4 samples, but the student for 8: call both"),
        ((1, 10), (8, 10), "The teacher gives outputs for 8 samples, but the student for 1:"),
    ],
)
def test_logits_of_other_shapes(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        check_logits(torch.zeros(student), torch.zeros(teacher))
    for name in LOSSES:
        with pytest.raises(ValueError, match=message):
            call(name, torch.zeros(student), torch.zeros(teacher))


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), True, "4", None])
def test_temperature_and_delta_are_positive(value):
    zeros = torch.zeros(8, 3)
    for name in ("kl_divergence", "decoupled_kl_divergence"):
        with pytest.raises(ValueError, match="temperature expected a number above 0, but got"):
            call(name, zeros, zeros, temperature=value)
    with pytest.raises(ValueError, match="delta expected a number above 0, but got"):
        huber(zeros, zeros, delta=value)


@pytest.mark.parametrize(("shape", "dim"), [((8, 3), 0), ((8, 3), 2), ((8, 3), -2), ((8, 3), -3), ((8,), 2)])
def test_class_dim_out_of_range(shape, dim):
    with pytest.raises(
        ValueError, match=f"class_dim expected a dimension from 1 to 1, or -1 for the last, but got {dim}"
    ):
        kl_divergence(torch.zeros(shape), torch.zeros(shape), class_dim=dim)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.zeros(8), r"target expected class indices as integers, but got Tensor\[8\] float32"),
        ([0] * 8, r"target expected class indices as integers, but got list\(8 of int\)"),
        (torch.zeros(8, 1, dtype=torch.long), r"one class per sample, of shape \(8,\), but got Tensor\[8, 1\] int64"),
        (torch.zeros(4, dtype=torch.long), r"one class per sample, of shape \(8,\), but got Tensor\[4\] int64"),
        (torch.full((8,), 3), "target expected classes from 0 to 2, but got 3"),
        (torch.full((8,), -100), "target expected classes from 0 to 2, but got -100"),
    ],
)
def test_target_that_does_not_fit(target, message):
    with pytest.raises(ValueError, match=message):
        decoupled_kl_divergence(torch.zeros(8, 3), torch.zeros(8, 3), target)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool])
def test_any_integers_are_a_target(dtype):
    student, teacher = pair(8, 2)
    target = labels(student.shape, 2)
    expected = decoupled_kl_divergence(student, teacher, target)
    assert decoupled_kl_divergence(student, teacher, target.to(dtype)) == expected


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((8, 4), (8, 4), r"features with positions, \(N, C, ...\), but got Tensor\[8, 4\] float32: use hint"),
        ((8, 4, 2, 2), (8, 4), r"but got Tensor\[8, 4\] float32: use hint"),
        ((8, 4, 2, 2), (8, 4, 2), r"the teacher's samples and dimensions, Tensor\[8, 4, 2\] float32, but got"),
        ((8, 4, 2, 2), (4, 4, 2, 2), r"the teacher's samples and dimensions, Tensor\[4, 4, 2, 2\] float32, but got"),
        ((8, 4, 1, 1), (8, 4, 7, 7), "expected at least two positions, but got a student's"),
        ((2, 3, 2, 2, 2, 2), (2, 3, 2, 2, 2, 1), "equal positions, or at most three dimensions of them, but got 4"),
    ],
)
def test_features_without_maps(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        attention_transfer(torch.zeros(student), torch.zeros(teacher))


def test_channel_dim_out_of_range():
    with pytest.raises(ValueError, match="channel_dim expected a dimension from 1 to 2, or -1 for the last, but got 3"):
        attention_transfer(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), channel_dim=3)


@pytest.mark.parametrize("student", [(8, 2, 4, 4), (8, 4, 1, 1), (1, 4, 4, 4)])
def test_hints_of_another_shape(student):
    with pytest.raises(
        ValueError, match=r"hint expected features of the teacher's shape, Tensor\[8, 4, 4, 4\] float32"
    ):
        hint(torch.zeros(student), torch.zeros(8, 4, 4, 4))
