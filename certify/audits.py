"""What a run says about its audits: how many rows of every input were evaluated alone, and agreed.

How they are chosen and compared: ``certify.sampling.audit``. No torch is needed to read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from certify.records import Record

#: The key among a run's settings and among a record's details.
AUDIT = "audit"
#: Copies of every input that are evaluated alone after its votes are in, and one more for every so many.
ROWS, SAMPLES_PER_ROW = 8, 4096

#: What a certificate rests on besides the sampler's random bits.
SENTENCE = (
    f" Votes are counted in batches: at least {ROWS} noisy copies of each input, which the model could not "
    "tell from the others, were evaluated again one at a time and had the class they were counted with. The "
    "bound rests on all others agreeing as well: copies with another class in their batch than alone, if "
    "there are any, make the class probability too large by at most their share."
)

#: The same where other classes were bounded from above.
TWO_SIDED_SENTENCE = SENTENCE.replace(
    "make the class probability too large by",
    "make the class probability too large, or another's too small, by",
)

#: The same for a statement about all inputs together, which needs fewer of each.
POPULATION_ROWS = 1
POPULATION_SENTENCE = (
    " Votes are counted in batches: a noisy copy of each input, which the model could not tell from the "
    "others, was evaluated again by itself and had the class it was counted with. The statements rest on "
    "all others agreeing as well."
)


def audit_settings() -> dict[str, int]:
    """The plan of the audit, as a run's settings keep it."""
    return {"rows": ROWS, "samples_per_row": SAMPLES_PER_ROW}


def audited(record: Record, found: Mapping[str, Any]) -> Record:
    """``record`` with what its audit ``found`` ({"rows", "disagreements"}) among its details."""
    return replace(record, details={**record.details, AUDIT: dict(found)}) if found else record
