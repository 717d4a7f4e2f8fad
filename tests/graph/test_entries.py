"""Edges without messages of torch_geometric's layers: gradients and masks by the weights of their entries.

Against central differences of the user's own call with other weights, the graph without the edges, and brute force.
"""

import pytest
import torch
from graph_cases import doubled
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import DenseGCNConv, GCNConv, GraphUNet, SAGPooling, dense_diff_pool, global_mean_pool
from torch_geometric.utils import scatter, to_dense_adj, to_dense_batch

import explain
from explain import Gradient, Mask, Shapley
from explain.types import NonFinite, Unsupported
from models.convolutions import LineGraphNet, MoNet
from models.dcnn import DCNN
from models.difformer import DIFFormer
from models.nodeformer import NodeFormer

NODE, LABEL = 1, 1
EDGES = torch.tensor([[0, 1, 2, 3, 4, 2, 1, 0], [1, 2, 3, 4, 0, 1, 1, 4]])  # a ring, a way back, a loop, a short cut


def ring(edges=EDGES, **fields):
    x = torch.randn(int(edges.max()) + 1, 3, generator=torch.Generator().manual_seed(0))
    return doubled(Data(x=x, edge_index=edges, **fields))


def dense(data, weights=None):
    """Rows are targets of messages."""
    weights = torch.ones(data.num_edges, dtype=data.x.dtype) if weights is None else weights
    made = torch.zeros(data.num_nodes, data.num_nodes, dtype=data.x.dtype)
    return made.index_put((data.edge_index[0], data.edge_index[1]), weights, accumulate=True)


def normalised(adjacency):
    full = adjacency + torch.eye(len(adjacency), dtype=adjacency.dtype)
    root = full.sum(0).rsqrt()
    return root[:, None] * full * root


class DenseGCN(nn.Module):
    """Takes the adjacency and normalises it itself."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x, adj):
        step = normalised(adj).T
        return step @ self.second((step @ self.first(x)).tanh())


class Spectral(DenseGCN):
    """Chebyshev polynomials of a dense Laplacian, made of edges and their weights."""

    def forward(self, x, edge_index, edge_weight=None):
        edge_weight = x.new_ones(edge_index.size(1)) if edge_weight is None else edge_weight
        adj = x.new_zeros(len(x), len(x)).index_put((edge_index[1], edge_index[0]), edge_weight, accumulate=True)
        laplacian = torch.diag(adj.sum(1)) - adj
        h = self.first(x).tanh()
        return self.second(h + laplacian @ h + laplacian @ (laplacian @ h))


class Summing(DenseGCN):
    """The mean of neighbours by index_add and bincount, and softmax over them: no weights, no layer of anyone's."""

    def forward(self, x, edge_index):
        return self.weighed(
            x, edge_index, x.new_ones(edge_index.size(1)), lambda target, size: target.bincount(minlength=size)
        )

    def weighed(self, x, edge_index, weights, count):
        (source, target), h = edge_index, self.first(x).tanh()
        heard = torch.zeros_like(h).index_add(0, target, weights[:, None] * h[source])
        h = h + heard / (1 + count(target, len(x)))[:, None]
        score = (h[source] * h[target]).sum(1).exp()
        total = 0.5 + scatter(weights * score, target, 0, len(x))
        return self.second(h + scatter((weights * score / total[target])[:, None] * h[source], target, 0, len(x)))


def made(kind, *sizes, **settings):
    torch.manual_seed(0)
    return kind(*sizes, **settings).double().eval()


def asked(net, data, **settings):
    return explain.wrap(net, data, task="node", **settings).node(NODE, label=LABEL)


def by_differences(answer, weights, step=1e-5):
    """Central differences of the number by each weight."""
    found = []
    for edge in range(len(weights)):
        move = step * torch.eye(len(weights), dtype=weights.dtype)[edge]
        found.append((answer(weights + move) - answer(weights - move)) / (2 * step))
    return torch.stack(found).detach()


def check(target, answer, weights, entries):
    """Saliency, input times gradient and integrated gradients of edges, held against the user's own call."""
    players = target.players("edges")
    assert len(players) >= 5
    expected, weights = by_differences(answer, weights)[players.index], weights[players.index]
    signed = Gradient(players, method="input_x_gradient").explain(target)
    torch.testing.assert_close(signed.scores, expected * weights, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(
        Gradient(players, method="saliency").explain(target).scores, expected.abs(), rtol=1e-6, atol=1e-8
    )
    whole = Gradient(players, steps=200).explain(target)
    game = target.game(players)
    empty, full = game.ends()
    assert whole.base == pytest.approx(empty, abs=1e-9)
    assert float(whole.scores.sum()) == pytest.approx(full - empty, rel=1e-4, abs=1e-7)
    assert whole.checks["removal"] == game.checks["removal"] == "delete"
    assert entries in whole.checks["entries"]
    assert whole.checks["entries_gap"] < 1e-9
    assert whole.checks["entries_jump"] < 1e-3


def test_a_dense_adjacency_is_differentiated_by_its_entries():
    data, net = ring(), made(DenseGCN)
    data.adj = dense(data)
    target = asked(net, data, call=lambda net, data: net(data.x, data.adj))

    def answer(weights):
        return net(data.x, dense(data, weights))[NODE, LABEL]

    check(target, answer, torch.ones(8).double(), "adj")


def test_weights_of_the_users_own_are_where_the_gradient_is_taken_and_the_path_ends():
    data, net = ring(), made(DenseGCN)
    weights = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(1)).double() + 0.5
    data.adj = dense(data, weights).to_sparse()

    def dense_net(net, data):
        return net(data.x, data.adj.to_dense())

    target = asked(net, data, call=dense_net)

    def answer(weights):
        return net(data.x, dense(data, weights))[NODE, LABEL]

    check(target, answer, weights, "adj")


def test_of_a_normalised_adjacency_it_is_the_message_of_the_same_gcn():
    data, net = ring(), made(lambda: Normalised())
    adjacency = normalised(dense(data))
    data.adj = adjacency
    mine = Gradient("edges", steps=16).explain(asked(net, data, call=lambda net, data: net(data.x, data.adj.T)))
    theirs = nn.ModuleList([GCNConv(3, 4), GCNConv(4, 2)]).double()
    for layer, linear in zip(theirs, (net.first, net.second), strict=True):
        layer.lin.weight.data.copy_(linear.weight)
        nn.init.zeros_(layer.bias)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = theirs

        def forward(self, x, edge_index, edge_weight):
            for layer in self.layers:
                layer.normalize = False
            return self.layers[1](self.layers[0](x, edge_index, edge_weight).tanh(), edge_index, edge_weight)

    graph = Data(x=data.x, edge_index=adjacency.nonzero().t(), edge_weight=adjacency[adjacency != 0])
    message = Gradient("edges", steps=16).explain(asked(Net().eval(), graph))
    assert message.checks["removal"] == "message"
    assert mine.checks["removal"] == "delete"
    known = dict(zip(map(tuple, message.players.geometry["ends"].T.tolist()), message.scores.tolist(), strict=True))
    for ends, score in zip(mine.players.geometry["ends"].T.tolist(), mine.scores.tolist(), strict=True):
        assert score == pytest.approx(known[tuple(ends)], abs=1e-9)


class Normalised(DenseGCN):
    def __init__(self):
        super().__init__()
        for layer in (self.first, self.second):
            nn.init.zeros_(layer.bias)

    def forward(self, x, adj):
        return adj @ self.second((adj @ self.first(x)).tanh())


def test_a_weight_that_forward_takes_and_nobody_gives_is_given():
    data, net = ring(), made(Spectral)
    target = asked(net, data)
    check(target, lambda w: net(data.x, data.edge_index, w)[NODE, LABEL], torch.ones(8).double(), "edge_weight")


def test_sums_over_edges_are_weighed_where_no_weight_is_taken():
    data, net = ring(), made(Summing)

    def counted(w):
        return lambda target, size: w.new_zeros(size).index_add(0, target, w)

    def answer(w):
        return net.weighed(data.x, data.edge_index, w, counted(w))[NODE, LABEL]

    check(asked(net, data), answer, torch.ones(8).double(), "sums over its edges")


@pytest.mark.parametrize(("kind", "entries"), [(DCNN, "sums over"), (DIFFormer, "ones that it gives")])
def test_networks_that_lay_their_edges_out_themselves(kind, entries):
    data = ring(EDGES[:, :6])
    net = made(kind, 3, 2, **({"hops": 4} if kind is DCNN else {"layers": 2}))

    def answer(weights):  # of whole numbers: parallel edges
        return net(data.x, data.edge_index.repeat_interleave(weights.long(), 1))[NODE, LABEL]

    target = asked(net, data)
    question = target.differentiable("edges")
    assert entries in question.checks["entries"]
    for weights in torch.tensor([[1.0, 0, 2, 1, 3, 1], [2, 1, 0, 0, 1, 2]]).double():
        torch.testing.assert_close(question.f(weights[None])[0], answer(weights))
    somewhere = (question.inputs + 0.1 * torch.arange(6)).requires_grad_()  # at 1 a mean over one has a kink
    (gradient,) = torch.autograd.grad(question.f(somewhere).sum(), somewhere)
    expected = by_differences(lambda w: question.f(w[None])[0], somewhere[0].detach())
    torch.testing.assert_close(gradient[0], expected, rtol=1e-6, atol=1e-8)


def test_a_graph_u_net_is_differentiated_through_its_powers_and_pools():
    data, net = ring(), made(GraphUNet, 3, 4, 2, depth=1, pool_ratios=0.8)
    target = asked(net, data)
    players = target.players("edges", all=True)
    found = Gradient(players, method="input_x_gradient").explain(target)

    def answer(w):
        return net(data.x, data.edge_index, edge_weight=w)[NODE, LABEL]

    torch.testing.assert_close(found.scores, by_differences(answer, torch.ones(8).double()), rtol=1e-6, atol=1e-8)
    assert found.checks["entries"] == "edge_weight"


class DiffPool(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.assign, self.out = DenseGCNConv(3, 4), DenseGCNConv(3, 2), nn.Linear(4, 2)

    def forward(self, x, edge_index, batch, weights=None):
        rows, real = to_dense_batch(x, batch)
        adj = to_dense_adj(edge_index, batch, weights, rows.size(1)).to(x.dtype)
        z, s = self.embed(rows, adj, real).tanh(), self.assign(rows, adj, real)
        pooled, coarse, *_ = dense_diff_pool(z, adj, s, real)
        return self.out((coarse @ pooled).tanh().mean(1))


def test_diffpool_answers_for_each_graph_of_a_list():
    graphs, net = [ring(), ring(EDGES[:, :5])], made(DiffPool)
    model = explain.wrap(net, graphs, task="graph", call=lambda net, data: net(data.x, data.edge_index, data.batch))
    for index, data in enumerate(graphs):
        target = model.graph(index, label=LABEL)
        batch = torch.zeros(5, dtype=torch.long)

        def answer(w, data=data, batch=batch):
            return net(data.x, data.edge_index, batch, w)[0, LABEL]

        expected = by_differences(answer, torch.ones(data.num_edges).double())
        found = Gradient("edges", method="input_x_gradient").explain(target)
        torch.testing.assert_close(found.scores, expected, rtol=1e-5, atol=1e-7)  # its ones are in float32
        together, alone = (Gradient("edges", steps=8, batch_size=size).explain(target) for size in (8, 1))
        torch.testing.assert_close(together.scores, alone.scores, rtol=1e-5, atol=1e-7)


def test_pairs_are_one_player_and_may_be_laid_out_both_ways():
    class Symmetric(DenseGCN):
        def forward(self, x, edge_index):
            adj = x.new_zeros(len(x), len(x))
            adj[edge_index[0], edge_index[1]] = 1
            adj[edge_index[1], edge_index[0]] = 1
            return super().forward(x, adj)

    pairs = torch.tensor([[0, 1, 2, 0], [1, 2, 3, 3]])
    data, net = ring(torch.cat([pairs, pairs.flip(0)], 1)), made(Symmetric)
    target = asked(net, data)
    with pytest.raises(Unsupported, match="0 it answers otherwise than without the edges"):
        Gradient("edges").explain(target)  # one of two leaves the entry as it is
    players = target.players("edges", undirected=True)
    found = Gradient(players, steps=100).explain(target)
    assert len(found.scores) == 4
    empty, full = target.game(players).ends()
    assert float(found.scores.sum()) == pytest.approx(full - empty, rel=1e-4)
    exact = Shapley(players, estimator="exact").explain(target)
    assert torch.equal(found.scores.argsort(), exact.scores.argsort())


def test_pairs_of_nodes_are_asked_about_too():
    class Links(Summing):
        def forward(self, x, edge_index, edge_label_index):
            z = super().forward(x, edge_index)
            return (z[edge_label_index[0]] * z[edge_label_index[1]]).sum(1)

    data, net = ring(edge_label_index=torch.tensor([[0, 2], [1, 3]])), made(Links)
    target = explain.wrap(net, data, task="edge").edge(0, 2)
    found = Gradient("edges", steps=100).explain(target)
    empty, full = target.game(found.players).ends()
    assert float(found.scores.sum()) == pytest.approx(full - empty, rel=1e-4)


class Asking(DenseGCN):
    """Attends to neighbours: entries are asked whether they are there."""

    def forward(self, x, adj):
        h = self.first(x)
        full = adj.T + torch.eye(len(x), dtype=x.dtype)
        return self.second((h @ h.T).masked_fill(full == 0, -torch.inf).softmax(1) @ h)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.last, self.out = GCNConv(3, 4), SAGPooling(4), GCNConv(4, 4), nn.Linear(4, 2)

    def forward(self, x, edge_index, batch):
        x, edge_index, _, batch, *_ = self.pool(self.conv(x, edge_index).relu(), edge_index, None, batch)
        return self.out(global_mean_pool(self.last(x, edge_index), batch))


@pytest.mark.parametrize(
    ("net", "found"),
    [
        (lambda: Asking(), "adj: it is only asked whether they are there"),
        (lambda: LineGraphNet(3, 2), "a layer rearranges its edges"),
        (lambda: NodeFormer(3, 2, hidden=4), "the answers jump by"),
    ],
)
def test_networks_whose_edges_have_no_weight_are_refused_in_words(net, found):
    target = asked(made(net), ring(EDGES[:, :6]))
    for explainer in (Gradient("edges"), Mask("edges", epochs=2, seed=0)):
        with pytest.raises(Unsupported, match=found) as raised:
            explainer.explain(target)
        assert "use Shapley, Lime or Occlusion" in str(raised.value)


def test_edges_that_pooling_numbers_anew_are_refused():
    target = explain.wrap(made(Pooled), [ring(), ring()], task="graph").graph(0)
    for explainer in (Gradient("edges"), Mask("edges", epochs=2, seed=0)):
        with pytest.raises(Unsupported, match="a layer rearranges its edges"):
            explainer.explain(target)


def test_messages_in_the_line_graph_of_a_ring_are_not_taken_for_those_of_the_ring():
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])  # its line graph has the same numbers
    target = asked(made(LineGraphNet, 3, 2), ring(edges))
    question = target.differentiable("edges")
    assert question.removal == "delete"
    masks = (torch.arange(16)[:, None] >> torch.arange(4) & 1).bool()
    torch.testing.assert_close(question.f(masks.double()), target.game("edges")(masks))


def test_another_removal_is_another_question():
    target = explain.wrap(made(Summing), ring(), task="node").node(NODE, removal="message")
    with pytest.raises(Unsupported, match="got removal='message'"):
        Gradient("edges").explain(target)


def test_a_sum_that_weights_are_divided_by_is_said():
    class Mean(DenseGCN):
        def forward(self, x, adj):
            step = adj.T / adj.sum(0).clamp(min=1e-12)[:, None]
            return self.second(self.first(x) + step @ self.first(x).tanh())

    target = asked(made(Mean), ring())
    for method in ("saliency", "integrated_gradients"):
        with pytest.warns(UserWarning, match="where weights of edges leave zero the answers jump by 1 "):
            found = Gradient("edges", method=method).explain(target)
        assert found.checks["entries_jump"] == pytest.approx(1, abs=0.01)


def test_a_network_that_reads_no_edges_gives_them_nothing():
    class Deaf(DenseGCN):
        def forward(self, x, edge_index, batch):
            return global_mean_pool(self.second(self.first(x)), batch)

    target = explain.wrap(made(Deaf), [ring(), ring()], task="graph").graph(0)
    found = Gradient("edges").explain(target)
    assert not found.scores.any()
    assert found.checks["entries"] == "none: no edge changes the answer"
    with pytest.raises(Unsupported, match="no edge changes the model's answer"):
        Mask("edges", epochs=2).explain(target)


@pytest.mark.parametrize("kind", [DenseGCN, Spectral, Summing])
def test_masks_multiply_weights(kind):
    data, net = ring(), made(kind)
    target = asked(net, data)
    call = target.module_copy()
    torch.testing.assert_close(
        call.module(call.x, call.edge_index)[call.row],
        net(data.x, dense(data) if kind is DenseGCN else data.edge_index)[NODE],
    )
    why = Mask("edges", epochs=60, lr=0.1, repeats=1, seed=0).explain(target)
    assert why.checks["removal"] == why.checks["fidelity_removal"] == "delete"
    assert why.checks["entries_gap"] < 1e-9
    assert why.checks["unmasked"] == 0
    with pytest.raises(Unsupported, match="reads the layers of torch_geometric"):
        Mask("edges", method="pg_explainer").fit([target])


class Voices(nn.Module):
    """Two sums over edges: a node speaks for class 0 by feature 0, against it by feature 1."""

    def forward(self, x, edge_index):
        z = 3 * (x[:, :1] - x[:, 1:2])
        for _ in range(2):
            z = torch.zeros_like(z).index_add(0, edge_index[1], z[edge_index[0]])
        return torch.cat([z, -z], 1)


def test_masks_of_weights_find_planted_causes():
    edges = torch.tensor([[1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 2, 3]])  # 0 <- 1 <- 4 (for), 2 <- 5 (against), 3 <- 6
    x = torch.zeros(7, 3).index_put((torch.tensor([4, 5, 6]), torch.arange(3)), torch.ones(3))
    net = Voices()
    target = explain.wrap(net, Data(x=x, edge_index=edges), task="node").node(0, label=0)
    scores = Mask("edges", epochs=150, lr=0.1, repeats=1, seed=0).explain(target).scores
    assert min(scores[0], scores[3]) > 0.8
    assert max(scores[1], scores[4]) < 0.3


class Beside(DenseGCN):
    """A layer of torch_geometric's, and edges that are read beside it."""

    def __init__(self, laid_out):
        super().__init__()
        self.conv, self.laid_out = GCNConv(3, 4), laid_out

    def forward(self, x, edge_index):
        h = self.conv(x, edge_index).tanh()
        if self.laid_out:
            return super().forward(x, to_dense_adj(edge_index, max_num_nodes=len(x))[0].to(x.dtype)) + self.second(h)
        return self.second(h.index_add(0, edge_index[1], h[edge_index[0]]))


@pytest.mark.parametrize("laid_out", [True, False])
def test_edges_that_are_read_beside_layers_too_are_weighed_in_both(laid_out):
    target = asked(made(Beside, laid_out), ring())
    question = target.differentiable("edges")
    assert question.removal == "delete"
    masks = torch.rand(8, len(target.players("edges")), generator=torch.Generator().manual_seed(0)) < 0.5
    weights = torch.where(question.owner < 0, 1, masks.double()[:, question.owner])
    torch.testing.assert_close(question.f(weights), target.game("edges")(masks))


def test_degrees_that_are_counted_beside_layers_leave_messages_messages():
    found = Gradient("edges").explain(asked(made(MoNet, 3, 2), ring()))
    assert found.checks["removal"] == "message"


def test_a_network_that_needs_edges_is_asked_only_where_it_answers():
    class Attending(DenseGCN):
        def forward(self, x, edge_index):
            (source, target), h = edge_index, self.first(x)
            score = (h[source] * h[target]).sum(1)
            score = (score - score.detach().max()).exp()  # fails where there is none
            total = 1e-16 + torch.zeros(len(x), dtype=x.dtype).index_add_(0, target, score)
            return self.second(h.index_add(0, target, (score / total[target])[:, None] * h[source]))

    target = asked(made(Attending), ring())
    question = target.differentiable("edges")
    assert question.checks["entries"] == "what it sums over its edges"
    masks = torch.rand(8, len(target.players("edges")), generator=torch.Generator().manual_seed(0)) < 0.6
    weights = torch.where(question.owner < 0, 1, masks.double()[:, question.owner])
    torch.testing.assert_close(question.f(weights), target.game("edges")(masks))


def test_a_baseline_without_a_number_is_said():
    class Share(DenseGCN):
        def forward(self, x, edge_index):
            (source, target), h = edge_index, self.first(x)
            score = (h[source] * h[target]).sum(1)
            score = (score - score.detach().max()).exp()
            total = torch.zeros(len(x), dtype=x.dtype).index_add(0, target, score)
            return self.second(h.index_add(0, target, (score / total[target])[:, None] * h[source]))

    target = asked(made(Share), ring())
    with pytest.raises(NonFinite, match="NaN or infinite at the baseline"):
        Gradient("edges").explain(target)
    assert Gradient("edges", method="saliency").explain(target).scores.isfinite().all()


@pytest.mark.filterwarnings("ignore:Converting sparse tensor", "ignore:Sparse")
def test_matrices_that_torch_cannot_differentiate_are_refused_in_words():
    data = ring()
    matrix = torch.sparse_coo_tensor(data.edge_index.flip(0), torch.ones(8).double(), (5, 5)).coalesce()
    target = asked(
        made(GCNConv, 3, 2), Data(x=data.x, adj_t=matrix), inputs={"edge_index": "adj_t", "edge_weight": None}
    )
    for explainer in (Gradient("edges"), Mask("edges", epochs=2, seed=0)):
        with pytest.raises(Unsupported, match=r"entries of adj_t: fails with them .*derivative"):
            explainer.explain(target)


class Heat(DenseGCN):
    """Heat that spreads on a graph, by eigenvectors of its Laplacian."""

    def forward(self, x, adj):
        values, vectors = torch.linalg.eigh(torch.diag(adj.sum(1)) - (adj + adj.T) / 2)
        return self.second(vectors @ ((-values).exp()[:, None] * (vectors.T @ self.first(x).tanh())))


def heat(nodes, step=None):
    there = torch.arange(nodes)
    data = ring(torch.cat([torch.stack([there, (there + 1) % nodes]), torch.stack([(there + 1) % nodes, there])], 1))
    data.adj = dense(data, step)
    return asked(made(Heat), data, call=lambda net, data: net(data.x, data.adj))


def test_a_derivative_through_equal_eigenvalues_is_not_the_numbers_own_and_that_is_said():
    target = heat(6)
    question = target.differentiable("edges")
    own = by_differences(lambda w: question.f(w[None])[0], question.inputs[0])
    with pytest.warns(UserWarning, match="torch's derivative is not the number's own"):
        found = Gradient("edges", method="saliency").explain(target)
    assert float((found.scores - own.abs()).norm() / own.norm()) > 0.01  # torch's is another
    assert found.checks["derivative_gap"] > 1e-3
    with pytest.warns(UserWarning, match="torch's derivative is not the number's own"):
        mask = Mask("edges", epochs=2, repeats=1, seed=0).explain(target)
    assert mask.checks["derivative_gap"] > 1e-3


def test_where_no_eigenvalues_are_equal_it_is():
    target = heat(6, 1 + torch.rand(12, generator=torch.Generator().manual_seed(2)).double())
    question = target.differentiable("edges")
    own = by_differences(lambda w: question.f(w[None])[0], question.inputs[0])
    found = Gradient("edges", method="saliency").explain(target)
    torch.testing.assert_close(found.scores, own.abs(), rtol=1e-5, atol=1e-8)
    assert found.checks["derivative_gap"] < 1e-6
