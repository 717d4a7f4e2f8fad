"""What each word does to a digit can be measured, and nothing else moves with it."""

import pytest
import torch

from models import words
from models.datasets import digits, worded

MEASURES = {"ink": words.peak_ink, "shift": words.centroid, "tone": words.brightness}


@pytest.fixture(scope="module")
def dressed():
    """Pictures in [0, 1] of 200 digits in every dress, ``[8, 200, 1, 8, 8]``, and the dresses."""
    traits = torch.cartesian_prod(*(torch.arange(2) for _ in words.TRAITS))
    images = digits()[0].images[:200]
    return torch.stack([(words.dress(images, worn.expand(200, -1)) + 1) / 2 for worn in traits]), traits


@pytest.mark.parametrize("trait", words.TRAITS)
def test_a_word_moves_what_it_is_said_to_move(dressed, trait):
    pictures, traits = dressed
    place = list(words.TRAITS).index(trait)
    means = torch.stack([MEASURES[trait](p).mean() for p in pictures])
    low, high = means[traits[:, place] == 0], means[traits[:, place] == 1]
    assert low.max() < high.min()
    if trait != "tone":  # ink does move the brightness
        assert max(low.max() - low.min(), high.max() - high.min()) < 0.05 * (high.mean() - low.mean())


def test_ink_moves_the_brightness_only_together_with_tone(dressed):
    pictures, traits = dressed
    mean = {tuple(worn): float(words.brightness(p).mean()) for worn, p in zip(traits.tolist(), pictures, strict=True)}
    for shift in (0, 1):
        plain, inverted = (mean[1, shift, tone] - mean[0, shift, tone] for tone in (0, 1))
        assert plain == pytest.approx(-inverted, rel=1e-5)
        assert plain > 0.1


def test_captions_say_what_is_worn_and_words_are_left_out_on_their_own():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels, traits = torch.randint(10, (4000,)), torch.randint(2, (4000, 3))
        whole, some = (words.captions(labels, traits, drop) for drop in (0.0, 0.25))
    for label, worn, prompt in zip(labels.tolist(), traits.tolist(), whole, strict=True):
        said = set(prompt.split()) - set(words.FILLERS)
        assert said == {words.NUMBERS[label]} | {pair[i] for pair, i in zip(words.TRAITS.values(), worn, strict=True)}
    assert len({tuple(word in words.NUMBERS for word in prompt.split()) for prompt in whole}) == 5  # in any order
    groups = [words.NUMBERS, *words.TRAITS.values(), words.FILLERS]
    there = torch.tensor([[bool(set(group) & set(prompt.split())) for group in groups] for prompt in some]).double()
    torch.testing.assert_close(there.mean(0), torch.full((5,), 0.75, dtype=torch.float64), rtol=0, atol=0.03)
    assert (torch.corrcoef(there.T) - torch.eye(5)).abs().max() < 0.06


def test_the_judge_reads_every_digit_in_every_dress():
    learned, held_out = worded()
    assert learned.images.shape == (8 * 1198, 1, 8, 8)
    assert len(held_out.labels) == 8 * 599
    assert torch.equal(learned.labels[:8], digits()[0].labels[:1].expand(8))
    assert len(learned.images[:8].unique(dim=0)) == 8
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    payoff = words.reads(net, "three")
    pictures = (held_out.images[:5] + 1) / 2
    torch.testing.assert_close(payoff(pictures), net(held_out.images[:5]).log_softmax(1)[:, 3])
    torch.testing.assert_close(payoff(pictures.expand(-1, 3, -1, -1)), payoff(pictures))
    assert payoff.__name__ == "log p(three)"
