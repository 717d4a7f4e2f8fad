"""Tables of their own: what one figure does not say."""

from __future__ import annotations

from functools import partial

from models import chickenpox, digress_results, style_ratio
from models.lds import settings as lds_settings
from models.lds.experiment import section as lds_section
from models.removal import edit_table
from models.results.page import Section

FORETOLD = """The linear datamodelling score of every method (`python -m models.lds`), for 20 held-out questions:
Spearman's correlation, over networks trained again on random halves, on 95 % of the examples, and without one of them,
of what scores foretell with what these say, with the bootstrap's 95 % interval. Scores are those of one run, held first
to that very run without the examples (same first weights, batches and noise), then, for halves, to the mean of several
seeds, beside the ceiling that seeds leave. No method is tuned by what is foretold; trainings were tried on other
questions."""

SECTIONS = [
    Section(
        "GraphCL against the style ratio",
        """Graphs of six motifs, the content, in random trees, the style, of 1 to 8 times their size. GraphCL encoders
are pre-trained on all of them, without labels, with edges dropped at random (generic) or those of style alone
(content-aware); untrained ones have their first weights. Five seeds, of the graphs too. Accuracies are those of a
linear probe, in percent: on held-out graphs, then on those with edges dropped. Attribution is the share of
1 − cosine without an edge that is on edges of the motif, beside their share of the edges. Mean ± standard deviation;
below, differences with 95 % intervals (Student's t). Trivedi et al. (2022) report that generic augmentation gains
little over first weights, and that content-aware augmentation keeps its accuracy as style grows.""",
        style_ratio.section,
    ),
    Section(
        "What DiGress has learned",
        """Of the row "DiGress type": means over 32 generated graphs of 16 nodes, as many real ones that were not
trained on, and draws of the limit, where the noise ends. Nats are those of a pair of nodes in four real graphs: the
bound on −log p under the network, and the entropy of the limit, which knows only how often edges occur. Below,
what each span of steps has in that bound: step 1 draws the clean graph, the others are KL divergences, the last
that of the limit.""",
        digress_results.section,
    ),
    Section(
        "Chickenpox with the graph and without",
        """Forecasts of a week's cases in Hungary's 20 counties from the four weeks before, on the last three fifths of
521 weeks; five seeds, mean ± standard deviation. Published errors of these data are means over an N x N table, every
county's cases less every other county's forecast; here under that name alone, beside each county's own, which says the
opposite of the graph. Wu et al. (2023) report that forecasts are often better without it.""",
        chickenpox.section,
    ),
    *(
        Section(f"Foretelling retraining: {name}", FORETOLD, partial(lds_section, [name]))
        for name in lds_settings.SETTINGS
    ),
    Section("Foretelling retraining: edits of a graph", edit_table.SAID, edit_table.section),
]
