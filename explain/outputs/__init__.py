"""What a model's outputs mean: logits, probabilities or log-probabilities of classes, or plain values.

It is read off the model's own answers (`evidence`), or given by the user. Everything that turns outputs into a class or
a number goes through `Meaning`. No file here knows a model, a family or an explainer.
"""

from explain.outputs.evidence import meaning_of, unsettled
from explain.outputs.labels import Form, column_count, label_form
from explain.outputs.last_operation import LastOperation
from explain.outputs.meaning import KINDS, Kind, Meaning, PayoffName, check_kind
from explain.outputs.other_parameters import redrawn

__all__ = [
    "KINDS",
    "Form",
    "Kind",
    "LastOperation",
    "Meaning",
    "PayoffName",
    "check_kind",
    "column_count",
    "label_form",
    "meaning_of",
    "redrawn",
    "unsettled",
]
