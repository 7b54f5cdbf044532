import pytest
import torch

from lit_xai.trainer.loss_history import WINDOW, LossHistory


def filled(values, history=None):
    history = history or LossHistory()
    for value in values:
        history.add(torch.tensor(float(value)))
    return history


def test_nothing_is_read_before_a_block_is_full(monkeypatch):
    read = []
    monkeypatch.setattr(LossHistory, "read", lambda self: read.append(len(self._block)))
    history = filled(range(WINDOW - 1))
    assert not read
    filled([0], history)
    assert read == [WINDOW]


def test_first_and_last_losses():
    history = filled(range(120))
    history.read()
    assert history.count == 120
    assert history.first == [0, 1, 2, 3, 4]
    assert history.recent == list(range(70, 120))
    assert history.late(40) == list(range(100, 120))
    assert history.late(1000) == history.recent


@pytest.mark.parametrize(
    ("n", "before"), [(0, []), (3, []), (8, [3, 4, 5, 6, 7]), (40, range(20, 40)), (200, range(150, 200))]
)
def test_mark_keeps_what_was_before_and_comes_after(n, before):
    history = filled(range(n))
    history.mark()
    filled(range(1000, 1070), history)
    history.read()
    (mark,) = history.marks
    assert mark.before == list(before)
    assert history.before(mark) == (list(before) or history.first)
    assert mark.shock == [1000, 1001, 1002, 1003, 1004]
    assert history.since(mark) == 70


def test_a_term_that_begins_with_an_epoch_moves_what_was_before():
    history = filled([2.3] * 10 + [0.3] * 40)
    history.mark()
    filled([0.4] * 50, history)
    history.start_epoch()
    filled([5.4] * 50, history)
    assert history.first == pytest.approx([7.3] * 5)
    assert history.marks[0].before == pytest.approx([5.3] * 25)


@pytest.mark.parametrize(
    "after",
    [
        [0.4] * 3 + [5.4] * 47,  # later than the first steps of the epoch: the weights did it
        [0.4, 5.4] * 25,
        [0.9] * 50,
        [float("inf")] * 50,
        [float("nan")] * 50,
    ],
)
def test_other_rises_are_no_new_term(after):
    history = filled([2.3] * 10 + [0.4] * 90)
    history.start_epoch()
    filled(after, history)
    assert history.first == pytest.approx([2.3] * 5)


def test_a_mark_explains_a_jump():
    history = filled([2.3] * 10 + [0.4] * 90)
    history.mark()
    history.start_epoch()
    filled([2.3] * 50, history)
    assert history.first == pytest.approx([2.3] * 5)


def test_state_restores_everything():
    history = filled(range(70))
    history.mark()
    filled(range(33), history)
    restored = LossHistory.of(history.state())
    for one in (history, restored):
        filled(range(60), one)
    assert restored.state() == history.state()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_any_precision(dtype):
    history = LossHistory()
    history.add(torch.tensor(0.5, dtype=dtype, requires_grad=True))
    history.add(torch.tensor([0.25], dtype=dtype)[0])
    history.read()
    assert history.recent == [0.5, 0.25]
