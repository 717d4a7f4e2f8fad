"""DiffusionModel: a trained denoiser and its noise schedule, ready to be asked about a step or a whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from explain.diffusion.bound import StepWeights
from explain.diffusion.denoiser import Condition
from explain.diffusion.inversion import check_reconstructed, check_tolerance, inverted
from explain.diffusion.payoffs import Nearness
from explain.diffusion.process import gaussian
from explain.diffusion.schedules import check_run
from explain.diffusion.settings import checked_shape
from explain.diffusion.targets import StepTarget, TrajectoryTarget
from explain.diffusion.trained import TrainedDenoiser
from explain.guard import usual_modes
from explain.introduction import introduced
from explain.payoffs import named
from explain.spelling import spelled


class DiffusionModel(TrainedDenoiser):
    """Any denoiser as ``(x_t, t, condition) -> prediction``, with the process that its noise comes and goes by.

    Args:
        net: a diffusers model, a diffusers pipeline, or any module or function ``(x_t [b, *shape], t [b], label)``.
        scheduler: a diffusers scheduler, or `Cold`; a pipeline brings its own. It is copied for every run and never
            changed.
        betas: float ``[T]`` in place of a scheduler: a DDIM scheduler is made from them.
        time: the unit that the network takes its time in, "step" (``t``), "unit" (``t / T``), "sigma" (it sees
            ``x_0 + sigma e`` and ``sigma = s_t / a_t``), "log_sigma" (``log(sigma) / 4``, the preconditioned network of
            EDM), or a function of ``t [b]``. Needed but for diffusers' own networks, for which diffusers defines it.
        condition: the network's argument that takes the label, where its name does not say.
        prediction_type: "epsilon", "sample", "v_prediction" or "flow_prediction"; the scheduler's when None, with
            ``betas`` "epsilon", which the answer then says.
        null: what stands for "no label", as the model was trained: a label, an embedding, or named arguments.
        shape: ``[C, H, W]`` of the images, where the model's configuration does not tell; ``[D]`` of points, ``[C, L]``
            of signals, ``[C, T, H, W]`` of videos.
        weight_decay: the penalty ``weight_decay/2 |theta|^2`` that the model was trained with.
        loss: "mse" (when None), "mae", "huber", or a function ``(predictions, wanted) -> [examples]``.
        draws: fixed (step, noise) draws that a training example's loss is averaged over.
        classifier: of noised images, ``(x_t, t) -> logits [b, classes]``, that steers a network trained without labels;
            ``guidance`` is then its scale. See `ClassifierGuided`.

    Raises:
        TypeError: neither scheduler nor betas, a network whose arguments or unit of time cannot be told, or a pipeline
            whose call holds more than is followed.
        ValueError: a scheduler with another prediction type than the model's.

    ``assumed`` says what was taken to be so without being told; it is written into every answer.

    >>> import torch
    >>> betas = torch.linspace(1e-4, 0.02, 10)
    >>> model = DiffusionModel(lambda x, t: x * 0, betas=betas, time="step", shape=(1, 4, 4))
    >>> model.step(torch.ones(1, 4, 4), t=5, payoff="norm").value()
    0.0
    """

    def __repr__(self) -> str:
        return introduced(self, self.module.net, "", "step(x0, t), trajectory(payoff=), invert(x0)", self.assumed)

    @spelled
    def step(
        self,
        x0: Tensor,
        t: int | Sequence[int] | Tensor,
        label: int | Tensor | Condition | None = None,
        *,
        seed: int = 0,
        draws: int = 4,
        payoff: str | Callable[[Tensor], Tensor] = "error",
        payoff_name: str | None = None,
        region: Tensor | None = None,
        guidance: float = 1.0,
        weights: StepWeights | None = None,
        fill: str = "mean",
        reference: Tensor | None = None,
        batch_size: int | None = None,
    ) -> StepTarget:
        """What the model says about one image at one noise level, or on average over several.

        Args:
            x0: a clean image ``[C, H, W]`` as the denoiser sees it (a latent, where there is a VAE before it), or a
                point, a signal or a video; it is noised with draws that every coalition shares.
            t: a step of the schedule, or several to average over.
            label: the condition: a class, an embedding (``[tokens, width]`` of a prompt), or named arguments, each
                ``[1, ...]``; None for unconditional models.
            seed: of the noise.
            draws: noise draws for each step, that the number is the mean of.
            payoff: "error", ``-|e - e_hat|^2``; "evidence", ``|e - D(null)|^2 - |e - D(label)|^2``; "norm",
                ``|e_hat|^2``; "x0", the mean of ``x0_hat`` over the region; "elbo", the step's term of the bound on
                ``log p(x0)`` in nats, summed over the steps (all of them: the bound); or a function ``x0_hat -> [n]``.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
            region: bool ``[H, W]`` (``[D]``, ``[L]``, ``[T, H, W]``), where squares are summed or means taken;
                everywhere when None.
            guidance: classifier-free guidance weight ``w`` in ``u + w (c - u)``.
            weights: of the squared error ``|x0 - x0_hat|^2`` at each step, for "error" and "evidence": "snr"
                (``SNR(t) = a^2 / s^2``, as None: the plain error of the noise), "min_snr" (``min(SNR, 5)``), "elbo"
                (``(SNR(t-1) - SNR(t)) / 2``), or a function of the steps ``t [n] -> [n]``.
            fill: an absent patch shows the "mean", a "reference" image, "zeros", each noised to the step with the same
                draw, or "noise" alone.
            reference: samples ``[m, *shape]`` for "mean" and "reference".
            batch_size: images in one forward pass; by default from a memory budget.

        Raises:
            ValueError: an image of another size, a step outside the schedule, an unknown payoff or fill.
        """
        times = np.asarray(t.cpu() if isinstance(t, Tensor) else t).reshape(-1).tolist()
        steps = tuple(self.process.checked_step(time) for time in times)
        with usual_modes():
            return StepTarget(
                self,
                self.image(x0),
                steps,
                label,
                seed,
                draws,
                named(payoff, payoff_name),
                region,
                guidance,
                fill,
                reference,
                batch_size,
                weights,
            )

    @spelled
    def trajectory(
        self,
        label: int | Tensor | Condition | None = None,
        *,
        payoff: Callable[[Tensor], Tensor],
        payoff_name: str | None = None,
        steps: int = 50,
        guidance: float = 1.0,
        seed: int = 0,
        draws: int = 1,
        shape: Sequence[int] | None = None,
        eta: float | None = None,
        latents: Tensor | None = None,
        batch_size: int | None = None,
    ) -> TrajectoryTarget:
        """What a function says about the image that a whole sampling run ends in.

        Args:
            label: the condition of the run.
            payoff: ``sample [n, *shape] -> [n]``, one number a sample.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
            steps: steps of the scheduler.
            guidance: classifier-free guidance weight ``w``.
            seed: of the starting noise, and of the noise that stochastic schedulers add.
            draws: runs from different noise that the number is the mean of.
            shape: as `DiffusionModel`, where the model does not tell.
            eta: noise in the steps of DDIM, from 0 to 1, as its ``step`` takes it.
            latents: ``x_T [draws, *shape]`` or ``[*shape]`` of deviation 1, in place of the seed's.
            batch_size: images in one forward pass.

        Raises:
            ValueError: the image size is not known, steps outside the schedule, or a scheduler of learned variances.
        """
        size = checked_shape(shape, self.channels) if shape is not None else self.shape
        if size is None:
            raise ValueError(
                "the image size is not known: give shape=(channels, height, width); [D] of points, [C, L] of signals, "
                "[C, T, H, W] of videos"
            )
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= self.process.steps:
            raise ValueError(f"steps must be whole, from 1 to {self.process.steps}, got {steps!r:.60}")
        check_run(self.scheduler)
        with usual_modes():
            asked = named(payoff, payoff_name)
            return TrajectoryTarget(self, label, asked, steps, guidance, seed, draws, size, batch_size, eta, latents)

    @spelled
    def invert(
        self,
        x0: Tensor,
        label: int | Tensor | Condition | None = None,
        *,
        payoff: Callable[[Tensor], Tensor] | None = None,
        payoff_name: str | None = None,
        steps: int = 50,
        guidance: float = 1.0,
        iterations: int = 5,
        tolerance: float = 0.05,
        batch_size: int | None = None,
    ) -> TrajectoryTarget:
        """The run that ends in a real picture: its starting noise found by going backwards, and its error measured.

        Args:
            x0: the picture ``[C, H, W]``, or another sample.
            label: the condition of the run.
            payoff: as in `trajectory`; ``-mean (sample - x0)^2`` when None, how near a run comes to the picture.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
            steps: of the scheduler, there and back.
            guidance: above 1 inversion is unstable: explain real pictures at 1.
            iterations: of each step's equation; 1 is plain DDIM inversion. See `inverted`.
            tolerance: the largest ``|reconstruction - x0| / |x0|`` that is answered.
            batch_size: images in one forward pass.

        Returns:
            A run whose ``start`` is the picture's noise; every game's checks hold the error as ``reconstruction``.

        Raises:
            ValueError: the run from there misses the picture by more than the tolerance; with the error and a remedy.
            Unsupported: a scheduler whose steps cannot be gone backwards, or one without noise.

        >>> import torch
        >>> betas = torch.linspace(1e-4, 0.02, 10)
        >>> model = DiffusionModel(lambda x, t: 0.1 * x, betas=betas, time="step")
        >>> run = model.invert(torch.ones(1, 4, 4), steps=5)
        >>> abs(run.value()) < 1e-6
        True
        """
        check_tolerance(tolerance)
        image = self.image(x0)
        gaussian(self.process, "inversion")
        own = named(payoff, payoff_name) or Nearness(image)
        run = self.trajectory(
            label, payoff=own, steps=steps, guidance=guidance, shape=tuple(image.shape), batch_size=batch_size
        )
        with usual_modes():
            found = inverted(run, image, iterations)
            check_reconstructed(found.error, tolerance, steps, run.guidance)
            return replace(run, latents=found.start, proofs={"reconstruction": found.error})
