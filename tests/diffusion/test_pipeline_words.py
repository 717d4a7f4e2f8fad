"""Words of a pipeline's prompt: as padding, and among the tokens of each encoder, whatever is done to texts."""

import pytest
import torch
from pipeline_calls import asked, built, ink, own, worth
from tiny_pipelines import CASES, PROMPT

import explain
from explain.types import Unsupported

# the arithmetic of one of diffusers' schedulers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WORDS = PROMPT.split()


class Blanking:
    """A tokenizer by hand that reads one token of the prompt as padding."""

    def __init__(self, tokenizer, at):
        self.tokenizer, self.at = tokenizer, at

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, text, *args, **kwargs):
        read = self.tokenizer(text, *args, **kwargs)
        for row, one in enumerate([text] if isinstance(text, str) else text):
            if one == PROMPT:
                read["input_ids"][row, self.at] = self.tokenizer.pad_token_id
                read["attention_mask"][row, self.at] = 0
        return read


@pytest.mark.parametrize("name", ["pixart sigma", "deepfloyd"])  # which write a prompt anew before it is read
def test_an_absent_word_is_read_as_padding_by_pipelines_that_clean_their_prompts(name):
    run = explain.wrap(built(name)).trajectory(**asked(name, payoff=ink, absent="pad"))
    game = run.game(run.players("words", negative=False))
    mask = torch.ones(2, len(WORDS), dtype=torch.bool)
    mask[0, 1] = False
    without, whole = game(mask).tolist()
    pipeline = CASES[name].build()
    pipeline.tokenizer = Blanking(pipeline.tokenizer, 1)
    assert without == pytest.approx(worth(own(name, pipeline)), rel=1e-5)
    assert abs(without - whole) > 1e-4 * abs(whole)


def test_padding_that_does_not_come_through_is_refused():
    class Cleaning(type(built("pixart sigma"))):
        """A pipeline that keeps nothing but letters."""

        def _text_preprocessing(self, text, clean_caption=False):
            rows = [text] if isinstance(text, str) else text
            return ["".join(letter for letter in row if letter.isascii()) for row in rows]

    pipeline = CASES["pixart sigma"].build()
    pipeline.__class__ = Cleaning
    run = explain.wrap(pipeline).trajectory(**asked("pixart sigma", payoff=ink, absent="pad"))
    with pytest.raises(Unsupported, match="absent='drop'"):
        run.game("words")


@pytest.mark.parametrize(
    ("name", "prompt"), [("wan", "  A red  fox"), ("pixart sigma", " a RED fox"), ("sd", "a\tred\nfox")]
)
def test_no_word_counts_as_cut_because_the_pipeline_cleans_the_prompt(name, prompt):
    run = explain.wrap(built(name)).trajectory(**asked(name, prompt=prompt, negative=None))
    players = run.players("words")
    assert "prompt" not in run.assumed
    assert players.names == tuple(prompt.split())
    (positions,) = run.tokens(players).values()
    ids, tokenizer = run.reading.ids("text_encoder"), built(name).tokenizer
    read = [tokenizer.decode(ids[at].tolist()).strip("\u2581 ").lower() for at in positions]
    assert read[1:] == ["red", "fox"]


def test_tokens_are_those_of_the_encoder_whose_output_the_network_is_given():
    """Both encoders of Flux give 16 tokens here; the network is given those of T5, without a mark for the beginning."""
    run = explain.wrap(built("flux")).trajectory(**asked("flux"))
    (positions,) = run.tokens(run.players("words")).values()
    assert [at.tolist() for at in positions] == [[i] for i in range(len(WORDS))]
    other = explain.wrap(built("flux")).trajectory(**asked("flux", prompt_2="blue cat"))
    assert "prompt_2" in other.assumed["beside"]
    with pytest.raises(Unsupported, match="cannot be told"):
        other.tokens(other.players("words"))


def test_a_prompt_that_is_not_found_again_is_said():
    run = explain.wrap(built("wan")).trajectory(**asked("wan", prompt="&amp; fox"))  # read as "& fox"
    assert "cannot be told" in run.assumed["prompt"]
    assert run.players("words", negative=False).names == ("&amp;", "fox")


def test_a_negative_prompt_within_the_prompt_is_read_where_it_stands():
    run = explain.wrap(built("sd")).trajectory(**asked("sd", negative="red fox"))
    (positions,) = run.tokens(run.players("words"), negative=True).values()
    assert [at.tolist() for at in positions] == [*([] for _ in WORDS), [1], [2]]
