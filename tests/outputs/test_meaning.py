"""The same classifier by its logits, probabilities or their logarithms says the same numbers."""

import pytest
import torch

from explain.outputs import Meaning
from explain.payoffs import payoff_function

Z = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("payoff", ["probability", "log_probability", "loss"])
def test_probabilities_and_their_logits_give_the_same_numbers(count, exclusive, payoff):
    z = Z[:, :count].double()
    p = z.sigmoid() if count == 1 or not exclusive else z.softmax(1)
    logits, probabilities = Meaning("logits", count, exclusive), Meaning("probabilities", count, exclusive)
    logs = Meaning("log_probabilities", count, exclusive)
    for label in range(logits.classes):
        expected = payoff_function(payoff, label, logits)(z)
        true = p[:, label] if count > 1 else (p if label else 1 - p)[:, 0]
        torch.testing.assert_close(
            expected, {"probability": true, "log_probability": true.log(), "loss": -true.log()}[payoff]
        )
        torch.testing.assert_close(payoff_function(payoff, label, probabilities)(p), expected)
        torch.testing.assert_close(payoff_function(payoff, label, logs)(p.log()), expected)
    assert [m.predicted(r) for m, r in ((logits, z[0]), (probabilities, p[0]), (logs, p[0].log()))] == [
        logits.predicted(z[0])
    ] * 3
