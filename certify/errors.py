"""Every error a user can cause: what happened, why, and what to do about it.

One base class, one child per kind of cause. ``exit_code`` is what the command
returns: 2 for usage and bad input, 1 where the evidence itself fails.
"""

from __future__ import annotations


class CertifyError(Exception):
    """Base of every error this toolkit raises on purpose.

    ``what`` names the failure, ``why`` its cause, ``remedy`` the next step.
    """

    exit_code = 2

    def __init__(self, what: str, *, why: str, remedy: str) -> None:
        self.what = what
        self.why = why
        self.remedy = remedy
        super().__init__(f"{what}\n  why: {why}\n  do:  {remedy}")


class InvalidSetting(CertifyError, ValueError):
    """A number or name given by the user is outside what the procedure allows."""


class InvalidArgument(InvalidSetting, TypeError):
    """A call with an argument that the function lacks, without one it needs, or with one of another kind."""


class InvalidInput(CertifyError, ValueError):
    """The inputs or labels cannot be certified as they are (NaN, range, shape, type)."""


class InvalidCounts(CertifyError, ValueError):
    """Counts that no experiment can produce (n = 0, k > n, negative)."""


class InvalidModel(CertifyError, ValueError):
    """The base classifier breaks the contract (training mode, NaN weights, wrong output)."""


class NondeterministicModel(InvalidModel):
    """The base classifier is not a fixed function of its input."""


class UnreadableFile(CertifyError, OSError):
    """A file is missing, truncated, or not of the format it claims to be."""


class UntrustedFile(CertifyError):
    """Reading this file could run code or exhaust memory; it was not opened."""


class ArchitectureMismatch(CertifyError):
    """Weights and architecture do not belong together, or the architecture is unknown."""


class DataNotFound(CertifyError, FileNotFoundError):
    """A data set is not where it was looked for, or not in its standard layout."""


class RunConflict(CertifyError):
    """A run directory holds another run's settings, or another process is writing it."""


class RunNotWritable(CertifyError, OSError):
    """A run directory cannot be written: disk full, read-only, or not a local disk."""


class WorkersLost(CertifyError):
    """The engine's worker processes cannot be kept alive."""

    exit_code = 1


class CorruptRun(CertifyError):
    """A run directory's content does not agree with its own hashes or schema."""

    exit_code = 1


class EvidenceFails(CertifyError):
    """A contradiction, a failed verification, or an unmet requirement."""

    exit_code = 1


class MissingExtra(CertifyError, ImportError):
    """An optional dependency is not installed."""


class ShadowedPackage(CertifyError, ImportError):
    """A sibling package was resolved outside this installation."""


class TrainingDiverged(CertifyError):
    """Losses or gradients stayed non-finite; no checkpoint was written."""

    exit_code = 1
