"""Every generalization bound beside the measured risk of the predictor that it speaks about."""

from __future__ import annotations

from typing import Any

from analysis.evidence import Claim, Evidence, LedgerRow


class RiskBounds(Claim):
    """One row per bound. A bound on the Gibbs risk is compared with the Gibbs risk, and so on."""

    name = "bound"
    statement = "the risk is at most the bound, with probability 1 - delta"
    assumption = "points i.i.d."
    reference = "each bound's own"
    verdict = "sound"
    sound = True

    def check(self, evidence: Evidence) -> list[LedgerRow]:
        stored = evidence.documents.get("bounds") or {}
        rows = [b.to_json() for b in evidence.bounds] or list(stored.get("results", []))
        bounds = [row for row in rows if str(row["target"]).startswith("risk") and row["side"] == "upper"]
        if not bounds:
            return [self.undetermined("risk bounds", "no generalization bound was computed for this run")]
        return [self._row(bound) for bound in bounds]

    def _row(self, bound: dict[str, Any]) -> LedgerRow:
        value, terms = bound["value"], bound["terms"]
        measured, low, high = (terms.get(k) for k in ("measured_risk", "measured_low", "measured_high"))
        quantity = f"{bound['name']} ({bound['predictor']})"
        own = {
            "reference": bound["reference"], "assumption": "; ".join(bound["assumptions"]) or self.assumption,
            "statement": f"{bound['target']} <= bound with probability {1 - (bound['delta'] or 0):g}",
            "vacuous": bool(bound["vacuous"]),
        }  # fmt: skip
        if measured is None or value is None:
            note = "" if value is not None else "the bound is infinite"
            return self.row(quantity, "undetermined", theory=value, note=note, **own)
        violated = low > value
        status = "violated" if violated else "holds" if high <= value else "undetermined"
        if status == "undetermined":
            own["note"] = "the interval of the measured risk reaches beyond the bound"
        return self.row(
            quantity, status, theory=value, measured=measured, low=low, high=high, slack=value - measured,
            violations=int(violated), checked=1, **own,
        )  # fmt: skip
