"""Methods wrapped on an instance by several, who go in any order and leave nothing."""

import copy
import gc
import itertools
import pickle
import weakref

import pytest
import torch
from torch import nn

from lit_xai.structure.attaching import unwrap, wrap


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def step(self, x, *, factor=1):
        """Say what it is."""
        return x * factor


def around(name, log):
    def call(method, *args, **kwargs):
        log.append(name)
        return method(*args, **kwargs)

    return call


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_they_go_in_any_order(order):
    net, log = Net(), []
    before = dict(vars(net))
    wrappers = {name: around(name, log) for name in "abc"}
    for one in wrappers.values():
        wrap(net, "step", one)
    left = list("abc")
    for name in order:
        log.clear()
        assert net.step(2, factor=3) == 6
        assert log == left[::-1]  # the last one given is the outermost
        unwrap(net, "step", wrappers[name])
        left.remove(name)
    log.clear()
    assert net.step(2) == 2
    assert log == []
    assert vars(net) == before


def test_a_bound_method_is_known_again():
    class Holder:
        def around(self, method, *args):
            return method(*args) + 1

    net, holder = Net(), Holder()
    wrap(net, "step", holder.around)
    assert net.step(1) == 2
    unwrap(net, "step", holder.around)
    assert net.step(1) == 1
    assert "__reduce_ex__" not in vars(net)


def test_what_was_not_wrapped_is_left_alone():
    net = Net()
    unwrap(net, "step")
    unwrap(net, "step", print)
    wrap(net, "forward", lambda method, x: x)
    unwrap(net, "step")
    unwrap(net, "forward", print)
    assert net(1) == 1
    unwrap(net, "forward")
    assert not set(vars(net)) & {"step", "forward", "__reduce_ex__"}


def test_what_was_on_the_instance_before_comes_back():
    net = Net()
    theirs = lambda x: -x  # noqa: E731
    net.step = theirs
    wrap(net, "step", lambda method, x: method(x) + 1)
    assert net.step(1) == 0
    unwrap(net, "step")
    assert net.step is theirs


def test_what_somebody_wraps_around_it_stays():
    net = Net()
    wrap(net, "step", lambda method, x: method(x) + 1)
    ours = net.step
    net.step = lambda x: 10 * ours(x)
    unwrap(net, "step")
    assert net.step(1) == 10
    assert set(vars(net)) & {"step", "__reduce_ex__"} == {"step"}


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("names", [["step"], ["step", "forward"], ["extra_repr", "step", "train"]])
def test_copies_and_pickles_have_none_of_it(duplicate, names):
    net, log = Net(), []
    for name in names:
        wrap(net, name, around(name, log))
    made = duplicate(net)
    assert set(vars(made)) == set(vars(Net()))
    assert made.step(2) == 2
    assert log == []
    assert net.step(2) == 2
    assert log == ["step"]
    inside = duplicate(nn.ModuleList([net]))
    assert set(vars(inside[0])) == set(vars(Net()))


def test_signature_and_name_are_the_methods():
    import inspect

    net = Net()
    wrap(net, "step", lambda method, *args, **kwargs: method(*args, **kwargs))
    assert list(inspect.signature(net.step).parameters) == ["x", "factor"]
    assert (net.step.__name__, net.step.__doc__) == ("step", "Say what it is.")
    assert net.step.__wrapped__.__func__ is Net.step
    unwrap(net, "step")


def test_errors_pass_and_others_are_left_alone():
    net, other = Net(), Net()

    def raises(method, x):
        raise KeyError(x)

    wrap(net, "step", raises)
    with pytest.raises(KeyError, match="1"):
        net.step(1)
    assert other.step(1) == 1
    unwrap(net, "step", raises)
    assert net.step(1) == 1


def test_one_that_unwraps_itself_while_it_runs():
    net = Net()

    def once(method, x):
        unwrap(net, "step", once)
        return method(x) + 1

    wrap(net, "step", once)
    assert [net.step(1), net.step(1)] == [2, 1]


def test_a_module_is_not_kept_alive():
    net = Net()
    wrap(net, "forward", lambda method, x: method(x))
    unwrap(net, "forward")
    reference = weakref.ref(net)
    del net
    gc.collect()
    assert reference() is None


def test_state_dict_knows_nothing(tmp_path):
    net = Net()
    wrap(net, "forward", lambda method, x: method(x))
    assert net.state_dict().keys() == Net().state_dict().keys()
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    unwrap(net, "forward")
