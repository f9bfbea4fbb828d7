"""What can be bounded: complexities, generalization, Lipschitz constants, and the claims ledger.

Estimates and lower bounds live here; a Lipschitz bound that a certificate rests on lives in
``certify.lipschitz``.
"""

from analysis.all_bounds import all_bounds, bounds_document, deterministic_gap
from analysis.classes import AdversarialLinear, Finite, FunctionClass, Kernel, Linear
from analysis.correlation import RankCorrelation, rank_correlations
from analysis.evidence import Claim, Evidence, LedgerRow
from analysis.gibbs import Gibbs, perturbation_bounds
from analysis.heldout import MeasuredGap, heldout_bound, kl_inverse, measured_gap, risk_at_radius
from analysis.hidden_state import HiddenState, hidden_state
from analysis.homogeneous import HomogeneousNet
from analysis.ledger import Ledger, ledger
from analysis.lipschitz_estimates import LipschitzBracket, lipschitz_bracket
from analysis.margins import MarginDistribution, margin_bound, margin_distribution
from analysis.network_bounds import norm_bounds
from analysis.pac_bayes import pac_bayes_bounds
from analysis.pac_bayes_training import Posterior, fit_posterior
from analysis.rademacher import empirical_rademacher
from analysis.rademacher_bounds import linear_bounds
from analysis.residual_gap import ResidualGap, gap_document, radius_with_gap, residual_gap
from analysis.result import BoundResult
from analysis.separation import HeldOut, held_out, same_points
from analysis.transported import Transported, euler_flow

__all__ = [
    "AdversarialLinear",
    "BoundResult",
    "Claim",
    "Evidence",
    "Finite",
    "FunctionClass",
    "Gibbs",
    "HeldOut",
    "HiddenState",
    "HomogeneousNet",
    "Kernel",
    "Ledger",
    "LedgerRow",
    "Linear",
    "LipschitzBracket",
    "MarginDistribution",
    "MeasuredGap",
    "Posterior",
    "RankCorrelation",
    "ResidualGap",
    "Transported",
    "all_bounds",
    "bounds_document",
    "deterministic_gap",
    "empirical_rademacher",
    "euler_flow",
    "fit_posterior",
    "gap_document",
    "held_out",
    "heldout_bound",
    "hidden_state",
    "kl_inverse",
    "ledger",
    "linear_bounds",
    "lipschitz_bracket",
    "margin_bound",
    "margin_distribution",
    "measured_gap",
    "norm_bounds",
    "pac_bayes_bounds",
    "perturbation_bounds",
    "radius_with_gap",
    "rank_correlations",
    "residual_gap",
    "risk_at_radius",
    "same_points",
]


def __dir__() -> list[str]:
    return sorted(__all__)
