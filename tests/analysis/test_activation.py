import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from explain.analysis import most_activating, most_activating_nodes, unit
from models.gcn import GCN

PATH = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])


def test_a_linear_unit_is_driven_into_the_corner_that_is_its_maximum():
    torch.manual_seed(0)
    net = nn.Linear(7, 3)
    real = torch.rand(20, 1, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = most_activating(net, unit("Linear", 2), (1, 7), (-1.0, 1.0), real=real)
    highest = float(net.weight[2].detach().abs().sum() + net.bias[2].detach())
    assert found.activation == pytest.approx(highest, rel=1e-6)
    assert torch.equal(found.input[0], net.weight[2].detach().sign())
    reached = net(real).detach()[:, 0, 2]
    assert (found.best, found.best_activation) == (int(reached.argmax()), pytest.approx(float(reached.max())))
    assert found.activation > found.best_activation
    assert all(weight.grad is None for weight in net.parameters())


def test_of_a_node_the_features_are_sought_with_its_graph_as_it_is():
    torch.manual_seed(0)
    net, x = GCN(5, 2).eval(), torch.rand(4, 5)

    def read(net, features):
        return net(torch.cat([x[:1], features, x[2:]]), PATH)[1, 0]

    found = most_activating(net, read, (1, 5), (0.0, 1.0), real=x[:, None], steps=40)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5)
    best = max(float(read(net, corner[None]).detach()) for corner in corners)
    assert found.activation > best - 1e-4  # the highest may lie between the corners
    assert found.activation >= found.best_activation
    assert float(found.input.min()) >= 0
    assert float(found.input.max()) <= 1


def test_a_channel_of_a_cnn_is_the_picture_it_was_made_for():
    """Stripes in every window; a picture that is smooth is asked for at a price."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=3, bias=False), nn.ReLU())
    stripe = torch.tensor([[-1.0, 2.0, -1.0]] * 3)
    net[0].weight.data.copy_(torch.stack([stripe, stripe.T])[:, None])
    found = most_activating(net, unit("0", 0), (1, 1, 12, 12), (-1.0, 1.0), starts=2, steps=60)
    assert torch.equal(found.input[0, 0], stripe.sign().repeat(4, 4))
    assert found.activation == pytest.approx(12.0)
    assert found.climb[-1] > found.climb[0]
    assert max(found.starts) == found.activation
    smooth = most_activating(net, unit("0", 0), (1, 1, 12, 12), (-1.0, 1.0), starts=2, steps=60, smooth=20.0)
    assert smooth.activation < found.activation
    assert smooth.input.diff(dim=3).abs().mean() < found.input.diff(dim=3).abs().mean()


def test_a_channel_of_a_denoiser_is_asked_at_a_step():
    torch.manual_seed(0)
    unet = UNet2DModel(
        *(8, 1, 1),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
    ).eval()
    real = torch.rand(3, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    read = unit("mid_block", 3, call=lambda net, x: net(x, 500))
    found = most_activating(unet, read, (1, 1, 8, 8), (0.0, 1.0), real=real, starts=1, steps=8)
    assert found.activation > max(found.best_activation, found.climb[0])
    with torch.no_grad():
        assert float(read(unet, real[found.best])) == pytest.approx(found.best_activation, rel=1e-5)
    assert all(not part._forward_hooks for part in unet.modules())


def test_nodes_of_the_data_come_with_what_they_hear():
    (first, value, heard), _ = most_activating_nodes(torch.tensor([0.1, 0.0, 0.5, 0.9]), PATH, k=2, hops=1)
    assert (first, heard.tolist()) == (3, [2, 3])
    assert value == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("read", "bounds", "real", "words"),
    [
        (unit("0", 0), (1.0, 1.0), None, "must be a range"),
        (unit("7", 0), (0.0, 1.0), None, "'7' is no module of Sequential; it has Sequential, 0"),
        (unit("0", 3), (0.0, 1.0), None, "channels 0 to 2, got 3"),
        (lambda net, x: net(x), (0.0, 1.0), None, r"one number that hangs on the input, got \[1, 3\]"),
        (unit("0", 0), (0.0, 1.0), [torch.ones(3)], r"must have the shape \[1, 2\], got \[3\]"),
    ],
)
def test_what_cannot_be_sought_is_said(read, bounds, real, words):
    with pytest.raises(ValueError, match=words):
        most_activating(nn.Sequential(nn.Linear(2, 3)), read, (1, 2), bounds, real=real, steps=2)
