"""The table of explainers says of each what the explainer itself says of the target."""

import dataclasses

import pytest
import torch

import explain
from explain.discovery.costs import calls_of
from explain.explainer import Explainer
from explain.types import Players, Target, Unsupported
from models.matrix.kinds import KINDS

ASKED = ("table", "GAT", "DDPM step", "DDIM run", "DiGress step")
CHEAPER = {  # the same questions with less to do
    "Gradient": {"steps": 2},
    "Mask": {"epochs": 2, "repeats": 1},
    "SubgraphX": {"rollouts": 1, "samples": 2},
    "Influence": {"damping": 1.0},
    "SelfInfluence": {"engine": explain.Influence(damping=1.0)},
    "Trak": {"dimensions": 2},
}
PLAYED = ("Shapley", "Banzhaf", "Interactions", "Lime", "Occlusion")


@pytest.fixture(scope="module", params=ASKED)
def asked(request):
    torch.manual_seed(0)
    target = KINDS[request.param]().target
    return target, target.explainers()


@pytest.mark.filterwarnings("ignore")  # doubts of few steps
def test_what_fits_answers_and_costs_no_more_calls_than_said(asked):
    target, found = asked
    assert found.fits
    for fit in found:
        if (fit.calls or 0) > 5000:
            continue
        why = dataclasses.replace(fit.explainer, **CHEAPER.get(type(fit.explainer).__name__, {})).explain(target)
        assert (why.players.kind, len(why.players)) == (fit.kind, fit.count), fit.ask
        if why.method in PLAYED:
            assert why.calls <= fit.calls, fit.ask
            assert why.method != "Shapley" or why.calls == fit.calls


def test_what_is_refused_is_refused_in_these_words(asked):
    target, found = asked
    assert found.refused
    names = {name: getattr(explain, name) for name in explain.__all__}
    for refused in found.refused:
        for ask in refused.asks:
            explainer = eval(ask, names)  # as it is written
            with pytest.raises((TypeError, ValueError)) as error:
                explainer.explain(target) if isinstance(explainer, Explainer) else target.players(explainer)
            assert " ".join(str(error.value).split()) == refused.words


def test_every_explainer_of_one_target_is_fitting_or_refused(asked):
    _, found = asked
    kinds = {
        name
        for name in explain.__all__
        if isinstance(kind := getattr(explain, name), type) and issubclass(kind, Explainer)
    }
    later = {"Explainer", "FittedMask", "FittedSurrogate", "Perturbation", "Relabelling"}  # need more than the target
    said = {type(fit.explainer).__name__ for fit in found} | {
        ask.partition("(")[0] for refused in found.refused for ask in refused.asks
    }
    assert kinds - later <= said


def test_the_table_is_shown_whole(asked):
    _, found = asked
    said, page = repr(found), found._repr_html_()
    for name in {type(fit.explainer).__name__ for fit in found}:
        assert f"\n{name}(" in said
        assert f"<td>{name}(" in page
    assert f"first: {found.first.ask}" in said
    assert all(line.rstrip() == line and len(line) <= 400 for line in said.splitlines())


def test_the_first_is_the_fairest_that_is_affordable():
    class Slow(Target):
        module = torch.nn.Identity()
        kinds = ("few", "many")
        has_classes = False

        def value(self):
            return 3.0

        def players(self, kind, **options):
            return Players(kind, torch.arange({"few": 3, "many": 40}[kind]))

        def game(self, players):
            def evaluate(masks):
                clock[0] += 1.0 * len(masks)
                return masks.double().sum(1)

            return explain.Game(self.players(players), evaluate)

        def describe(self):
            return {"asked": "how many?"}

    clock = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("explain.discovery.asking.time.perf_counter", lambda: clock[0])
        found = explain.explainers(Slow(), patience=5)
        alone = explain.explainers(Slow(), "many", patience=5)
    seconds = {(type(fit.explainer).__name__, fit.kind): fit.seconds for fit in found}
    assert found.first.ask == 'Shapley("few")'
    assert seconds["Shapley", "many"] == pytest.approx(2048, rel=0.01)
    assert alone.first.ask == 'Occlusion("many")'


def test_what_takes_too_long_is_not_tried_and_says_so():
    target = explain.wrap(torch.nn.Linear(3, 1), task="regression").example(torch.ones(3))
    before = torch.get_rng_state()
    found = target.explainers(patience=-1)
    assert torch.equal(torch.get_rng_state(), before)
    gradient = next(fit for fit in found if fit.ask == 'Gradient("features")')
    assert not gradient.tried
    assert "not tried" in repr(found)
    with pytest.raises(Unsupported, match="nothing captured"):
        next(fit for fit in found if fit.ask == "Attention()").explainer.explain(target)  # it may yet be refused


@pytest.mark.parametrize("players", [1, 2, 16, 17, 40, 300])
def test_costs_are_those_of_the_explainers(players):
    game = explain.Game(Players("nodes", torch.arange(players)), lambda masks: masks.double().sum(1))

    class Sum(Target):
        module = torch.nn.Identity()

        def game(self, players):
            return game

        def describe(self):
            return {}

    for explainer in (explain.Shapley("nodes", seed=0), explain.Lime("nodes", seed=0), explain.Occlusion("nodes")):
        if players > 20 and isinstance(explainer, explain.Lime):
            continue
        game.calls = 0
        spent = explainer.explain(Sum()).calls
        assert 0.9 * calls_of(type(explainer).__name__, players) - 3 <= spent
        assert spent <= calls_of(type(explainer).__name__, players)


def test_no_target_is_refused():
    with pytest.raises(TypeError, match="needs a target"):
        explain.explainers(torch.nn.Linear(2, 1))
