"""The classical picture of attention: which source word each word of a translation looks at."""

import pytest
import torch

from explain import plot
from explain.attention.ablation import uniform
from models import translation
from models.translation import alignment, translated


@pytest.fixture(scope="module")
def trained():
    found = translation.pairs()
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    learned, held_out = ([found[i] for i in part] for part in (order[:600], order[600:660]))
    return translation.train(learned, iterations=200, progress=False), held_out


def test_sentences_never_seen_are_translated(trained):
    net, held_out = trained
    assert all(translated(net, pair.source) == pair.target for pair in held_out)


def test_each_word_looks_at_the_one_that_it_comes_from(trained):
    net, held_out = trained
    maps = [alignment(net, pair) for pair in held_out]
    hits = [m.argmax(1) == torch.tensor(pair.alignment) for m, pair in zip(maps, held_out, strict=True)]
    assert float(torch.cat(hits).double().mean()) > 0.9
    assert max(float((m.sum(1) - 1).abs().max()) for m in maps) < 1e-5


def test_without_looking_the_translation_is_lost(trained):
    net, held_out = trained
    with uniform(net):
        blind = [translated(net, pair.source) == pair.target for pair in held_out]
    assert sum(blind) < len(held_out) / 4


def test_the_picture_has_the_words_of_both(trained):
    net, held_out = trained
    pair = held_out[0]
    ax = plot.attention(alignment(net, pair), names=pair.source, rows=pair.target)
    assert [label.get_text() for label in ax.get_xticklabels()] == pair.source
    assert [label.get_text() for label in ax.get_yticklabels()] == pair.target
    with pytest.raises(ValueError, match="labels"):
        plot.attention(alignment(net, pair), names=pair.source, rows=pair.source[:-1])
