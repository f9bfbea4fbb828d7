"""What can be bounded: complexities, generalization, Lipschitz constants, and the claims ledger.

Estimates and lower bounds live here; a Lipschitz bound that a certificate rests on lives in
``certify.lipschitz``.
"""

from analysis.classes import AdversarialLinear, Finite, FunctionClass, Kernel, Linear
from analysis.ledger import Claim, Evidence, Ledger, LedgerRow, ledger
from analysis.rademacher import empirical_rademacher
from analysis.rademacher_bounds import linear_bounds
from analysis.result import BoundResult

__all__ = [
    "AdversarialLinear",
    "BoundResult",
    "Claim",
    "Evidence",
    "Finite",
    "FunctionClass",
    "Kernel",
    "Ledger",
    "LedgerRow",
    "Linear",
    "empirical_rademacher",
    "ledger",
    "linear_bounds",
]
