import graph_cases
import pytest
import torch
from torch import nn

import explain


def asked(name="gcn", **options):
    data = graph_cases.doubled(graph_cases.random_graph())
    return explain.wrap(graph_cases.network(name, double=True), data).node(3, **options)


def test_another_number_of_the_same_prediction():
    target = asked(label=1)
    place = target.place
    other = target.asking("probability")
    assert other.place is place
    assert other.label == 1
    assert other.value() == pytest.approx(float(target.run()[0].softmax(0)[1]))
    assert target.value() == pytest.approx(float(target.run()[0, 1]))


def test_noise_moves_features_by_a_share_of_their_spread():
    target, generator = asked(), torch.Generator().manual_seed(0)
    x = target.graph.nodes[""]["x"]
    noisy = target.perturbed(generator, 0.1).graph.nodes[""]["x"]
    assert noisy.shape == x.shape
    assert ((noisy - x).std(0) / x.std(0)).sub(0.1).abs().max() < 0.05
    assert target.perturbed(generator, 0.0).value() == pytest.approx(target.value(), abs=1e-12)


def test_a_randomised_network_is_a_copy_with_the_same_values():
    target, generator = asked(), torch.Generator().manual_seed(0)
    before = {name: p.clone() for name, p in target.module.state_dict().items()}
    other = target.randomised(generator)
    assert other.module is not target.module
    assert other.model.net is other.module
    assert abs(other.value() - target.value()) > 1e-3
    for name, p in target.module.state_dict().items():
        assert torch.equal(p, before[name])
    for p, q in zip(target.module.parameters(), other.module.parameters(), strict=True):
        assert torch.equal(p.detach().reshape(-1).sort().values, q.detach().reshape(-1).sort().values)


def test_what_is_known_of_the_network_is_kept_while_a_randomised_one_is_asked():
    target = asked()
    target.game("edges").ends()
    known = dict(target.model.findings.agreement)
    assert known
    other = target.randomised(torch.Generator().manual_seed(0))
    other.game("edges").ends()
    assert target.model.findings.agreement == known
    assert other.model.findings is not target.model.findings


def test_a_link_model_is_randomised_with_its_decoder():
    class Link(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.out = graph_cases.network("gcn"), nn.Linear(3, 1)

        def encode(self, x, edge_index):
            return self.net(x, edge_index)

        def decode(self, z, edge_label_index):
            return self.out(z[edge_label_index[0]] * z[edge_label_index[1]]).squeeze(1)

    target = explain.wrap(Link(), graph_cases.random_graph(), task="edge").edge(1, 2)
    other = target.randomised(torch.Generator().manual_seed(0))
    assert other.model.net.module is other.module
    assert other.model.net.decode.__self__ is other.module
    assert other.value() != target.value()


def test_the_supervised_family_has_the_same_verbs():
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    target = explain.wrap(net, task="classification", background=torch.randn(20, 4)).example(torch.ones(4), 2)
    generator = torch.Generator().manual_seed(0)
    assert target.asking("probability").value() == pytest.approx(float(target.run().softmax(1)[0, 2]))
    assert target.perturbed(generator).value() != target.value()
    assert target.randomised(generator).value() != target.value()
    assert target.asking("loss").baseline is target.baseline
