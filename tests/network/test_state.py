"""What a module holds beside its weights comes back, whatever holds it."""

import pickle
import random
import threading
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lit_xai.functional import attribute
from lit_xai.network.copying import copy_network
from lit_xai.network.state import kept_state


class World:
    """An environment: a state, and a generator that moves it."""

    def __init__(self):
        self.generator, self.state, self.visits = np.random.default_rng(0), np.zeros(3), {"all": [0]}

    def step(self):
        self.state += self.generator.standard_normal(3)
        self.visits["all"][0] += 1
        return self.state.copy()


class Agent:
    def __init__(self, world, network):
        self.world, self.network = world, network


class Player(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.world = World()
        self.agent = Agent(self.world, self.inner)
        self.memory = deque(maxlen=3)
        self.noise, self.python = torch.Generator().manual_seed(0), random.Random(0)
        self.rewards, self.steps, self.last = np.zeros(4), 0, None
        self.inner.called = {"times": 0}

    def play(self):
        self.memory.append(self.agent.world.step())
        self.rewards[self.steps] = self.python.random() + torch.rand(1, generator=self.noise).item()
        self.steps += 1
        self.last = self.world.state
        self.inner.called["times"] += 1
        self.inner.training = not self.inner.training
        self.more = True


def held(player):
    values = {name: value for name, value in vars(player).items() if not name.startswith("_")}
    noise = values.pop("noise").get_state().numpy().tobytes()
    agent = values.pop("agent")
    return pickle.dumps((values, player.inner.called, player.inner.training, noise, agent.world.visits))


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_body_writes_to_comes_back(fails):
    player = Player()
    player.play()
    player.play()
    before, objects = held(player), dict(vars(player))
    with pytest.raises(KeyError) if fails else kept_state(nn.Module()), kept_state(player):
        player.play()
        assert player.agent.world is player.world
        assert player.agent.network is player.inner
        assert (player.steps, len(player.memory), player.world.visits["all"]) == (3, 3, [3])
        if fails:
            raise KeyError
    assert held(player) == before
    assert vars(player).keys() == objects.keys()
    assert all(vars(player)[name] is value for name, value in objects.items())


def test_the_body_draws_what_it_would_have_drawn():
    one, other = Player(), Player()
    one.play()
    with kept_state(other):
        other.play()
        assert held(one) == held(other)
    other.play()
    assert held(one) == held(other)


def test_modules_tensors_and_data_are_shared_and_so_is_what_cannot_be_copied():
    player = Player()
    player.data, player.lock = TensorDataset(torch.zeros(2)), threading.Lock()
    player.hidden, player.mean = [nn.Linear(2, 2)], torch.zeros(2)
    inside = []
    with kept_state(player):
        inside += [player.data, player.lock, player.hidden[0], player.mean, player.inner.weight]
    wanted = [player.data, player.lock, player.hidden[0], player.mean, player.inner.weight]
    assert all(one is other for one, other in zip(inside, wanted, strict=True))


class Noisy(nn.Module):
    """Adds noise of a generator of its own, and remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.lin, self.generator, self.seen = nn.Linear(3, 2), np.random.default_rng(0), deque()

    def forward(self, x):
        self.seen.append(x.shape)
        return self.lin(x + torch.from_numpy(self.generator.standard_normal(x.shape)).float())


def test_every_one_of_many_generators_is_a_copy():
    network = nn.Linear(2, 2)
    generators = {f"generator_{i}": np.random.default_rng(i) for i in range(8)}
    vars(network).update(generators)
    with kept_state(network):
        shared = [name for name, one in generators.items() if getattr(network, name) is one]
        first = [getattr(network, name).random() for name in generators]
    assert not shared
    assert first == [one.random() for one in generators.values()]


def test_explaining_leaves_the_generator_of_a_network():
    network = Noisy()
    attribute(network, torch.ones(2, 3), method="Saliency", target=torch.tensor([0, 1]))
    assert not network.seen
    assert network.generator.random() == np.random.default_rng(0).random()


def test_the_parser_of_a_command_line_is_not_copied():
    copies = []

    class Parser:
        def __deepcopy__(self, memo):
            copies.append(self)
            return self

    def of_command_line(instantiator, optimizer, **options):
        return optimizer

    network = nn.Linear(2, 2)
    network.optimizer = partial(of_command_line, Parser(), torch.optim.SGD, lr=0.1)
    with kept_state(network):
        pass
    assert copies  # as of any object
    Parser.__module__ = "jsonargparse._core"
    copies.clear()
    with kept_state(network):
        pass
    assert copy_network(network).optimizer is network.optimizer
    assert not copies
