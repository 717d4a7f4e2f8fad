"""Everything that knows what a denoiser is.

From the bottom up: ``sites`` are where a sample has its numbers, ``process`` and ``schedules`` are the noise, ``cold``
what is undone in its place, ``bound`` how its steps are weighted, ``denoiser`` the network as it is called, by its
``signature`` and ``conventions`` and what is known of such ``networks``; a ``classifier`` may steer it, ``proofs`` try
it. ``trained`` is both with what else is known of the training, also out of a pipeline's ``components``. ``sampling``
runs it, ``recomputing`` gradients on the way, ``payoffs`` read a prediction, and ``number`` is what it says about
edited copies of an image, or a run, with checked ``settings``. On the number stand ``games``, played by ``players``
with the ``fills`` of absence, readings of a run that are not credit, ``commit`` and ``forks``, the ``inversion`` of
pictures, and the training, ``training_set`` and ``objective``. ``targets`` hands the number to them, a verb a line; a
``cascade`` of runs is one more; ``model`` is what `explain.wrap` returns, and ``pipelines`` are diffusers' own calls,
watched.

No explainer may enter, nor may a file use what stands above it.
"""
