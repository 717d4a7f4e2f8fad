import pytest
import torch
from torch_geometric.nn import GCNConv

from explain.analysis import relations
from models.convolutions import RGCN


@pytest.mark.parametrize("bases", [None, 2])
def test_what_relations_add_sums_to_the_layer_and_is_its_formula(bases):
    torch.manual_seed(0)
    x, edges, kinds = torch.randn(6, 3), torch.randint(0, 6, (2, 15)), torch.arange(15) % 3
    net = RGCN(3, 2, relations=4, hidden=5, bases=bases)
    first, second = relations(net, x, edges, kinds)
    assert (first.layer, second.layer) == ("conv1", "conv2")
    conv = net.conv1
    weight = conv.weight if bases is None else torch.einsum("rb,bio->rio", conv.comp, conv.weight)
    assert first.gap < 1e-5
    assert torch.allclose(first.norms, weight.norm(dim=(1, 2)).detach())
    assert first.edges.tolist() == [5, 5, 5, 0]
    assert float(first.sizes[3]) == 0
    mine = (edges[1] == edges[1, 0]) & (kinds == 0)
    by_hand = x[edges[0, mine]].mean(0) @ weight[0]
    assert torch.allclose(first.adds[0, edges[1, 0]], by_hand, atol=1e-5)
    assert (first.coefficients is None) == (bases is None)


def test_other_layers_have_no_weights_a_relation():
    edges = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="GCNConv ran no RGCNConv over 2 nodes"):
        relations(GCNConv(2, 2), torch.ones(2, 2), edges, edges[0], call=lambda net: net(torch.ones(2, 2), edges))
