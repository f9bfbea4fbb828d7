"""scikit-learn estimators, and all that speak their language, as models of class scores.

What is certified is the most probable class by ``predict_proba`` (else the largest ``decision_function``,
else ``predict`` itself). Probabilities enter as their logarithms, as ``certify.wrap`` has it. Where
``predict`` chooses another class than the scores do, the user has to say which of the two is meant.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certify.errors import InvalidInput, InvalidModel

#: What an estimator can be asked, the most telling first.
METHODS = ("predict_proba", "decision_function", "predict")
#: Rows on which scores and ``predict`` are compared, and how close two scores are to be no choice.
_COMPARED, _TIE = 512, 1e-6


class EstimatorScores:
    """An estimator's answer to inputs (batch, *shape) as a tensor (batch, classes), in float64.

    ``method``: "predict_proba" or "decision_function"; "predict" gives one for the class and zero for others.
    Inputs of several axes are flattened. An estimator that was fitted on named columns gets them again.
    ``chosen``: the user named the method. Otherwise the first rows are also given to ``predict``: calling
    raises InvalidModel where it chooses other classes.
    """

    def __init__(self, estimator: Any, method: str, *, chosen: bool) -> None:
        self.estimator = estimator
        self.method = method
        self.classes = _classes(estimator)
        self._left = 0 if chosen or method == "predict" or not hasattr(estimator, "predict") else _COMPARED

    def __call__(self, x: Tensor) -> Tensor:
        rows: Any = x.detach().cpu().flatten(1).numpy()
        names = getattr(self.estimator, "feature_names_in_", None)
        if names is not None and len(names) == rows.shape[1]:
            import pandas as pd

            rows = pd.DataFrame(rows, columns=list(names))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            found = self._columns(np.asarray(getattr(self.estimator, self.method)(rows)))
            if self._left > 0:
                self._compare(rows[: self._left], found[: self._left])
        return torch.from_numpy(found).to(x.device)

    def __getstate__(self) -> dict[str, Any]:
        """All that decides an answer: how many rows were compared does not."""
        return {name: value for name, value in self.__dict__.items() if name != "_left"} | {"_left": 0}

    def _compare(self, rows: Any, scores: np.ndarray) -> None:
        best = np.sort(scores, axis=1)[:, -2:]
        clear = best[:, 1] - best[:, 0] > _TIE * np.abs(scores).max(axis=1)
        other = clear & (np.asarray(self.estimator.predict(rows)) != self.classes[scores.argmax(axis=1)])
        self._left -= len(rows)
        if other.any():
            kind = type(self.estimator).__name__
            raise InvalidModel(
                f"predict and {self.method} of the {kind} choose different classes",
                why=f"they differ on {int(other.sum())} of {len(rows)} inputs; a certificate is about one",
                remedy=f"say which is meant: pass model.{self.method}, or model.predict (votes only)",
            )

    def _columns(self, found: np.ndarray) -> np.ndarray:
        if self.method == "predict":
            return (found.reshape(-1, 1) == self.classes).astype(np.float64)
        found = np.array(found, dtype=np.float64)
        if found.ndim == 1:  # one score, of the second class
            return np.stack((1 - found / 2, 1 + found / 2), axis=1)
        return found


def scores_of(model: Any) -> tuple[EstimatorScores, str] | None:
    """The scores of an estimator, or of a method of one, and whether they are "probabilities" or "logits".

    None for every other model. Raises InvalidModel for estimators that are not fitted, and for those that
    are no classifiers.
    """
    method = getattr(model, "__name__", "") if hasattr(model, "__self__") else ""
    if method in METHODS and _is_estimator(model.__self__):
        found = EstimatorScores(model.__self__, method, chosen=True)
    elif isinstance(model, type) and hasattr(model, "fit") and not issubclass(model, nn.Module):
        raise InvalidModel(
            f"the class {model.__name__} was passed, not an estimator",
            why="a class has learned nothing",
            remedy=f"make one and fit it: {model.__name__}(...).fit(x, y)",
        )
    elif _is_estimator(model):
        able = [name for name in METHODS if hasattr(model, name)]
        found = EstimatorScores(model, able[0], chosen=False)
    else:
        return None
    return found, "probabilities" if found.method == "predict_proba" else "logits"


def own_labels(model: Any) -> np.ndarray | None:
    """The labels that an estimator behind ``model`` gives its classes; None where they are 0, 1, 2, ..."""
    for part in model.modules() if isinstance(model, nn.Module) else ():
        scores = getattr(part, "model", None)
        if isinstance(scores, EstimatorScores):
            places = np.arange(len(scores.classes))
            same = scores.classes.dtype.kind in "iufb" and np.array_equal(scores.classes, places)
            return None if same else scores.classes
    return None


def class_positions(model: Any, y: Any) -> Any:
    """Labels as an estimator was taught them, as positions among its classes; all else as it is.

    Raises InvalidInput for a label that the estimator does not know.
    """
    known = own_labels(model)
    if known is None or y is None:
        return y
    labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if labels.ndim != 1:
        return y
    order = np.argsort(known)
    try:
        places = np.searchsorted(known, labels, sorter=order).clip(max=len(known) - 1)
        found = order[places]
        wrong = known[found] != labels
    except TypeError:  # text beside numbers
        found, wrong = np.zeros(len(labels), dtype=np.int64), np.ones(len(labels), dtype=bool)
    if np.any(wrong):
        label = labels[np.flatnonzero(wrong)[0]]
        raise InvalidInput(
            f"the label {label.item() if hasattr(label, 'item') else label!r} is unknown to the estimator",
            why=f"it was fitted with the classes {', '.join(map(str, known[:8].tolist()))}",
            remedy="pass the labels as the estimator was taught them; records name classes by their "
            "position: estimator.classes_[record.label]",
        )
    return found.astype(np.int64)


def _is_estimator(model: Any) -> bool:
    if isinstance(model, nn.Module | type) or callable(model):
        return False
    return hasattr(model, "fit") and any(hasattr(model, name) for name in METHODS)


def _classes(estimator: Any) -> np.ndarray:
    kind = type(estimator).__name__
    found = getattr(estimator, "classes_", None)
    if found is not None and isinstance(found, np.ndarray) and found.ndim == 1 and len(found) >= 2:
        return found
    if found is not None:
        raise InvalidModel(
            f"the {kind} does not choose one of several classes",
            why=f"its classes_ are {str(found)[:80]}",
            remedy="certify one output of it at a time, as a function that returns the scores of its classes",
        )
    fitted = any(name.endswith("_") and not name.startswith("_") for name in vars(estimator))
    raise InvalidModel(
        f"the {kind} is no classifier" if fitted else f"the {kind} has not been fitted",
        why="it has no classes_ to choose from",
        remedy="pass a classifier" if fitted else "call fit(x, y) before it is certified",
    )
