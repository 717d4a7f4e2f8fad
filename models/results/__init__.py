"""Every network held to its paper: ``python -m models.results`` trains what is missing and writes ``RESULTS.md``.

Each seed's network is a checkpoint (`models.checkpoints`), so a run that was killed goes on where it was.
"""
