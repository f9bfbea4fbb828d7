"""How a report speaks of certificates: proved here, or claimed by the log they were copied from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """The words of one kind of run, as they stand in a sentence.

    ``proof`` names the verdict, ``claims`` what a run does with an input, ``accuracy`` its main number.
    """

    proved: str
    claims: str
    proof: str
    certified: str
    certificate: str
    accuracy: str
    share: str

    def verdict(self, kind: str) -> str:
        """The verdict's name: "proof" stands for what the run's records say, the others for themselves."""
        return self.proof if kind == "proof" else kind


PROVED = Vocabulary(
    proved="proved",
    claims="proves",
    proof="proof",
    certified="certified",
    certificate="certificate",
    accuracy="certified accuracy",
    share="certified share",
)
#: Nothing in a log can be checked, so nothing of it is called proved.
CLAIMED = Vocabulary(
    proved="claimed by the log",
    claims="claims",
    proof="claim of the log",
    certified="claimed",
    certificate="claim",
    accuracy="accuracy claimed by the log",
    share="share claimed by the log",
)
