"""Words that cause what is seen are credited for it, by games that equal the pipeline called one prompt at a time."""

from itertools import combinations
from math import factorial
from types import SimpleNamespace

import pytest
import torch
import typer
from prompt_cases import FEW
from typer.testing import CliRunner

import explain
from models import judge, planted_words, prompt_digits
from models.planted_words import (
    CAUSES,
    PAIRS,
    Asked,
    Check,
    Credit,
    Held,
    lead,
    of_credit,
    of_obedience,
    of_pair,
    table,
)

PROMPT = ("faint", "zero", "right", "inverted")
SEEDS, CALL = 24, {"num_inference_steps": 10, "guidance_scale": 1.5}
FEWER = Held(number=0.85, share=0.7)  # for three digits: a third are zeros; `make prompts` holds ten to the whole
COALITIONS = [tuple(bool(i >> bit & 1) for bit in range(4)) for i in range(16)]

pytestmark = pytest.mark.xdist_group("prompt digits")  # one worker trains the pipeline where the cache has none


@pytest.fixture(scope="module")
def trained():
    return prompt_digits.load_or_train(FEW, progress=False)


@pytest.fixture(scope="module")
def payoffs():
    net = judge.load_or_train("worded", epochs=prompt_digits.JUDGE_EPOCHS, progress=False).module
    return planted_words.payoffs(net) | {"faint on the right": planted_words.faint_on_the_right}


@pytest.fixture(scope="module")
def pictures(trained):
    """What the pipeline draws when called with one prompt at a time, ``[16, SEEDS, 1, 8, 8]``: the slow reference."""
    found = []
    for there in COALITIONS:
        text = " ".join(word for word, stays in zip(PROMPT, there, strict=True) if stays)
        generators = [torch.Generator().manual_seed(seed) for seed in range(SEEDS)]
        rows = trained.pipeline([text] * SEEDS, generator=generators, output_type="pt", **CALL).images
        found.append(rows)
    return torch.stack(found)


def worth(pictures, payoff):
    """Values ``[16, seeds]`` of the coalitions."""
    with torch.no_grad():
        return payoff(pictures.flatten(0, 1)).view(len(pictures), -1).double()


def shapley(values):
    """Exact values of each word and seed, ``[4, seeds]``, from ``[16, seeds]``."""
    found = torch.zeros(4, values.size(1), dtype=torch.float64)
    for i, word in enumerate(found):
        for size in range(4):
            weight = factorial(size) * factorial(3 - size) / factorial(4)
            for others in combinations([j for j in range(4) if j != i], size):
                without = sum(1 << j for j in others)
                word += weight * (values[without | 1 << i] - values[without])
    return found


def interactions(values):
    """The Shapley interaction index of each pair, ``[4, 4]``, from ``[16]``."""
    found = torch.zeros(4, 4, dtype=torch.float64)
    for i, j in combinations(range(4), 2):
        for size in range(3):
            weight = factorial(size) * factorial(2 - size) / factorial(3)
            for others in combinations([k for k in range(4) if k not in (i, j)], size):
                s = sum(1 << k for k in others)
                found[i, j] += weight * (
                    values[s | 1 << i | 1 << j] - values[s | 1 << i] - values[s | 1 << j] + values[s]
                )
    return found + found.T


@pytest.fixture(scope="module")
def asked(trained):
    return Asked(trained.pipeline, " ".join(PROMPT), seeds=(0, 1))


def test_every_word_is_obeyed(trained):
    assert [line.what for line in of_obedience(trained.facts, FEWER) if not line.holds] == []


@pytest.mark.parametrize("name", CAUSES)
def test_the_word_that_causes_it_has_the_credit(pictures, payoffs, name):
    values = worth(pictures, payoffs[name])
    credit = shapley(values)
    torch.testing.assert_close(credit.sum(0), values[-1] - values[0])
    lines = list(of_credit(name, CAUSES[name], Credit(PROMPT, credit.T, values[-1] - values[0], 0.0), FEWER))
    assert len(lines) == (3 if name == "class" else 2)
    assert [line for line in lines if not line.holds] == []


@pytest.mark.parametrize("name", CAUSES)
def test_games_of_words_are_calls_of_the_pipeline_one_by_one(asked, pictures, payoffs, name):
    values = worth(pictures[:, :2], payoffs[name])
    model = explain.wrap(asked.pipeline)
    game = model.trajectory(asked.prompt, payoff=payoffs[name], seed=0, draws=2, **asked.call).game("words")
    torch.testing.assert_close(game(torch.tensor(COALITIONS)).double(), values.mean(1), rtol=1e-4, atol=1e-4)
    found = asked.credit(payoffs[name])
    assert found.names == game.players.names == PROMPT
    torch.testing.assert_close(found.scores, shapley(values).T, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.shared, values[-1] - values[0], rtol=1e-3, atol=1e-4)
    assert found.gap <= 1e-5


@pytest.mark.parametrize("name", PAIRS)
def test_words_that_only_work_together_are_found(asked, pictures, payoffs, name):
    """Less ink makes a plain picture darker and an inverted one brighter: alone, a word of ink does nothing to it."""
    values = worth(pictures, payoffs[name])
    each = torch.stack([interactions(column) for column in values.T])
    line = of_pair(name, PAIRS[name], PROMPT, each, FEWER)
    assert line.holds, line
    torch.testing.assert_close(asked.pairs(payoffs[name]), each[:2], rtol=1e-3, atol=1e-4)


# --- what `make prompts` says ---


def test_a_lead_is_by_hand():
    samples = torch.tensor([[-3.0, 1.0, 0.5], [-5.0, 1.0, 0.1], [-4.0, 2.5, 0.0]])
    found = lead(samples)
    assert (found.first, found.second) == (0, 1)
    assert (found.mean, found.error, found.ratio) == pytest.approx((-4.0, 1 / 3**0.5, 4 / 1.5))
    assert found.ahead == pytest.approx(2.5 / (torch.tensor([2.0, 4.0, 1.5]).std().item() / 3**0.5))


def credited(scores, spread=0.1, gap=0.0):
    """These scores in four seeds, give or take, where the first two words share out 4."""
    noise = spread * torch.tensor([-1.0, -1.0, 1.0, 1.0])[:, None] * torch.tensor([1.0, -1.0, 0.0, 0.0])
    return Credit(PROMPT, torch.tensor(scores) + noise, torch.full((4,), 4.0), gap)


@pytest.mark.parametrize(
    ("found", "fails"),
    [
        (credited([0.1, 3.9, 0.0, 0.0]), []),
        (credited([3.9, 0.1, 0.0, 0.0]), ["credit of the class", "share of zero in log p"]),  # another word
        (credited([2.9, 4.0, 0.0, 0.0]), ["credit of the class"]),  # less than 1.5 times
        (credited([0.1, 3.9, 0.0, 0.0], spread=8.0), ["credit of the class"]),  # by luck
        (credited([0.0, 3.5, 0.5, 0.0]), ["share of zero in log p"]),
        (credited([0.1, 3.9, 0.0, 0.0], gap=2e-5), ["efficiency of the class"]),
    ],
)
def test_each_thing_that_is_asked_can_fail(found, fails):
    assert [line.what for line in of_credit("class", "zero", found, Held()) if not line.holds] == fails


def test_words_that_are_not_obeyed_fail():
    facts = {"judge_accuracy": 0.98, "class": 0.96, "ink": 1.0, "shift": 1.0, "tone": 0.99}
    assert all(line.holds for line in of_obedience(facts, Held()))
    for name in facts:
        assert [line.holds for line in of_obedience(facts | {name: 0.89}, Held())].count(False) == 1


def test_another_pair_fails():
    own = torch.zeros(3, 4, 4)
    own[:, 0, 3] = own[:, 3, 0] = torch.tensor([1.0, 1.1, 0.9])
    assert of_pair("brightness", ("faint", "inverted"), PROMPT, own, Held()).holds
    assert of_pair("brightness", ("inverted", "faint"), PROMPT, own, Held()).holds
    assert not of_pair("brightness", ("faint", "right"), PROMPT, own, Held()).holds
    assert not of_pair("brightness", ("faint", "inverted"), PROMPT, own - 1.0, Held()).holds


def test_the_command_prints_one_table_and_fails_where_a_check_does(asked, payoffs, monkeypatch):
    trained = SimpleNamespace(pipeline=asked.pipeline, facts={})
    monkeypatch.setattr(prompt_digits, "load_or_train", lambda **_: trained)
    monkeypatch.setattr(judge, "load_or_train", lambda *_, **__: SimpleNamespace(module=None))
    app = typer.Typer()
    app.command()(planted_words.main)
    lines = [Check("one", "1", "> 0", True), Check("rank", "a, b", "", None)]
    for more, status in (([], 0), ([Check("two", "2", "> 3", False)], 1)):
        monkeypatch.setattr(planted_words, "checks", lambda *_, more=more: lines + more)
        found = CliRunner().invoke(app, [])
        assert found.exit_code == status
        assert found.stdout.strip() == table(lines + more).strip()
    assert "FAILS" in found.stdout
