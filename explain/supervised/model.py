"""A trained classifier or regressor, ready to be asked about one example."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from explain.introduction import introduced
from explain.payoffs import Payoff, named
from explain.spelling import spelled
from explain.supervised.baselines import Baseline
from explain.supervised.targets import ExampleTarget, asked
from explain.supervised.trained import TrainedNetwork


@dataclass(frozen=True, eq=False, repr=False)
class SupervisedModel(TrainedNetwork):
    """Any torch classifier or regressor ``[rows, *shape] -> [rows, outputs]`` on tables or images.

    Args:
        module: the trained model. One output a row of a classifier is that of class 1.
        task: "classification" or "regression".
        background: ``[m, features]`` or ``[m, C, H, W]``, typical examples: what an absent feature may look like.
        train: what it was trained on, for `Influence`: ``(inputs, labels)``, a Dataset or a DataLoader.
        weight_decay: of the trained loss, as in ``torch.optim.SGD``.
        loss: what was trained: "cross_entropy", "bce", "mse", "mae", "huber", "hinge", "poisson", "multi_margin" (the
            hinge of several classes), "brier" (the squared error of the probabilities), or a function
            ``(outputs, labels) -> [examples]``; None: taken from outputs and labels where these leave no doubt.
        outputs: what a classifier answers, "logits", "probabilities" or "log_probabilities"; None: found out on the
            background or the training inputs. Several outputs that do not exclude one another have ``loss="bce"``.
        output: which part of a tuple, mapping or object the model returns: its position, its name, or a function.
        feature_names: one a feature of a table.
        class_names: one a class, or one an output of a regressor.
        batch_size: rows in one call of the model; from a memory budget when None. Never changes a result.
        query_rows: for `Attention`, the rows of an attention map that outputs are read from: ``(0,)``, a class token.

    Raises:
        TypeError: ``module`` is no module, ``background`` no tensor or of another dtype than the module.
        ValueError: an unknown task, a negative weight decay, no batch, an empty background or one on another device.
        NonFinite: NaN or infinity in the background.

    >>> from torch import nn, tensor
    >>> linear = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(linear.weight, 2.0)
    >>> target = SupervisedModel(linear, task="regression").example(tensor([1.0, 3.0]))
    >>> target.value(), target.game("features")(tensor([[True, False], [False, True]]))
    (8.0, tensor([2., 6.], dtype=torch.float64))
    """

    def __repr__(self) -> str:
        return introduced(self, self.module, self.task, "example(x)", {})

    @spelled
    def example(
        self,
        x: Tensor,
        label: int | None = None,
        *,
        payoff: Payoff | None = None,
        payoff_name: str | None = None,
        baseline: str | Tensor | Baseline | None = None,
    ) -> ExampleTarget:
        """The number that the model says about one example, as a question to explain.

        Args:
            x: ``[features]`` or ``[C, H, W]``, of the model's dtype and device.
            label: the class; the predicted one when None. Of a regressor, which of several outputs.
            payoff: "logit", "probability", "log_probability", "loss", "value" (the model's own number) or a callable
                ``[rows, outputs] -> [rows]``; None: the model's own number, whose name follows from ``outputs``.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
            baseline: what an absent feature looks like. "zeros"; "mean" of the background; a tensor like ``x``; a
                tensor ``[m, *x.shape]`` or "background": the number averaged over those rows (interventional);
                "conditional" or a `Conditional`: ``E[f(x) | x_S]`` under a Gaussian fitted to the background.
                None: "background" where the model has one, else "zeros".

        Raises:
            TypeError: an example that is no tensor of the model's dtype; see `checked_example`, `chosen`.
            ValueError: an example of another shape, no such label, payoff or baseline, not a name for each feature.
            NonFinite: NaN or infinity in the example, the baseline or the outputs.

        Warns:
            UserWarning: the rows of a batch see one another, so that each is evaluated alone.
        """
        return asked(self, x, label, named(payoff, payoff_name), baseline)
