import torch

from lit_xai.data.rating_rows import RatingRows
from lit_xai.models import MatrixFactorization, Regressor, TwoTower
from lit_xai.ranking.scoring import score_all, score_pairs


def rows():
    torch.manual_seed(0)
    return RatingRows(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0), torch.randn(4, 6), torch.eye(6)[:, :3])


def test_scores_are_the_networks_in_eval_mode_and_leave_it_as_it_was():
    data = rows()
    network = TwoTower(4, 6, 3, factors=5, dropout=0.5).train()
    users, items = torch.tensor([3, 0, 1]), torch.tensor([5, 5, 2])
    state = torch.random.get_rng_state()
    found = score_pairs(Regressor(network), data.describe, users, items)
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), state)
    with torch.no_grad():
        expected = network.eval()(**data.describe(users, items))[:, 0]
    torch.testing.assert_close(found, expected)


def test_a_network_gets_the_inputs_that_it_names():
    found = score_all(MatrixFactorization(4, 6, factors=2).eval(), rows().describe, torch.tensor([2, 0]), 6)
    assert found.shape == (2, 6)


def test_more_pairs_than_one_call_takes_are_scored_in_pieces(monkeypatch):
    network, data = MatrixFactorization(4, 6).eval(), rows()
    whole = score_all(network, data.describe, torch.arange(4), 6)
    monkeypatch.setattr("lit_xai.ranking.scoring.AT_ONCE", 7)
    torch.testing.assert_close(score_all(network, data.describe, torch.arange(4), 6), whole)
    assert score_pairs(network, data.describe, torch.zeros(0).long(), torch.zeros(0).long()).shape == (0,)
