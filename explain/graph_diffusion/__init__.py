"""Denoisers whose state is labels on a graph, or a graph itself.

From below to above, where each may use what stands before it and nothing that comes after:

- ``copies``: edited copies of one graph, side by side as one;
- ``processes``: how labels become noise and come back, Gaussian or classes;
- ``network``: the user's denoiser as ``(graph, y_t, t) -> prediction``, proved in one batch against one by one;
- ``readings``: what its answer means, found out on the labels that are known;
- ``settings``: of a question, checked;
- ``trained``: the denoiser with its graph, its noise and who is known;
- ``sampling``: runs, with known labels in their place; ``commit``: readings of runs that are not credit;
- ``number``: what runs end in, and what a step foresees, on edited copies;
- ``players``, ``games``: coalitions into numbers, and derivatives;
- ``label_losses``, ``label_objective``: what was trained, as `Influence` takes it;
- ``targets``: the verbs; ``model``: what `explain.wrap` returns.

Where the graph itself is denoised, likewise: ``graph_states`` and their noise, ``conditions``, ``graph_losses``,
``graph_network``, ``graph_number``, ``graph_games``, ``graph_objective``, ``graph_targets``, ``graph_model``.
"""
