"""scikit-learn estimators are certified and attacked as they are, by their own classes."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

import certify
from attacks import Threat, attack
from certify.contents import model_contents
from certify.errors import CertifyError, InvalidInput, InvalidModel, InvalidSetting
from certify.estimators import EstimatorScores

X, Y = load_iris(return_X_y=True)
X = np.round(X * 64) / 64
SETTINGS = {"sigma": 0.1, "grid": 1 / 64, "bounds": (0, 8)}
PROBABLE = {
    "forest": lambda: RandomForestClassifier(10, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(10, random_state=0),
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=5),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=5),
    "logistic regression": lambda: LogisticRegression(max_iter=500),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "nearest neighbours": KNeighborsClassifier,
    "naive bayes": GaussianNB,
    "network": lambda: MLPClassifier((8,), max_iter=300, random_state=0),
    "grid search": lambda: GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [2, 3]}),
}
SCORED = {"svc": SVC, "linear svc": lambda: LinearSVC(dual=False), "ridge": RidgeClassifier}


class Voter(BaseEstimator):
    """A classifier of somebody's own, which gives classes and nothing else."""

    def fit(self, x, y):
        self.inside_ = DecisionTreeClassifier(random_state=0).fit(x, y)
        self.classes_ = self.inside_.classes_
        return self

    def predict(self, x):
        return self.inside_.predict(x)


LABELS = {"voter": Voter}


def certified(model, x=X, y=Y, **settings):
    rows = torch.tensor(np.asarray(x)[::30], dtype=torch.float32)
    return certify.Smoothed(model, **(SETTINGS | settings)).certify(rows, np.asarray(y)[::30], n_max=300)


@pytest.mark.parametrize("name", [*PROBABLE, *SCORED, *LABELS])
def test_the_class_is_the_one_that_the_estimator_predicts(name, recwarn):
    model = {**PROBABLE, **SCORED, **LABELS}[name]().fit(X, Y)
    wrapped = certify.wrap(model)
    rows = torch.tensor(X[::7], dtype=torch.float32)
    assert wrapped(rows).argmax(1).tolist() == model.predict(rows.numpy()).tolist()
    run = certified(model)
    assert sum(r.certified and r.label == r.target for r in run) >= 3
    assert not [w for w in recwarn if w.category is UserWarning], "it is known what its numbers mean"


@pytest.mark.parametrize("name", PROBABLE)
def test_probabilities_enter_as_their_logarithms(name):
    model = PROBABLE[name]().fit(X, Y)
    rows = torch.tensor(X[::10], dtype=torch.float32)
    scores = certify.wrap(model)(rows)
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores.exp().numpy(), model.predict_proba(rows.numpy()), atol=1e-12)


def test_a_method_of_an_estimator_is_the_estimator():
    forest = PROBABLE["forest"]().fit(X, Y)
    whole = certified(forest)
    for method in (forest.predict_proba, certify.wrap(forest)):
        assert [(r.label, r.radius) for r in certified(method)] == [(r.label, r.radius) for r in whole]
    centroid = NearestCentroid().fit(X, Y)  # whose two methods are two classifiers
    for method in (centroid.predict, centroid.predict_proba):
        assert len(certified(method)) == 5
    hard = certified(forest.predict)
    assert [r.label for r in hard if r.certified] == [r.target for r in hard if r.certified]


def test_two_classes_of_one_decision_function_are_two_columns():
    x, y = X[:100], Y[:100]
    model = SVC().fit(x, y)
    rows = torch.tensor(x[::9], dtype=torch.float32)
    scores = certify.wrap(model)(rows)
    np.testing.assert_allclose((scores[:, 1] - scores[:, 0]).numpy(), model.decision_function(rows.numpy()))
    assert len(certified(model, x, y)) == 4


@pytest.mark.parametrize("labels", [np.array([1, 2, 5]), np.array(["setosa", "versicolor", "virginica"])])
def test_labels_are_the_estimators_own(labels):
    model = PROBABLE["forest"]().fit(X, labels[Y])
    run = certified(model, y=labels[Y])
    assert [r.target for r in run] == Y[::30].tolist()
    assert all(model.classes_[r.label] == labels[Y[::30][i]] for i, r in enumerate(run) if r.certified)
    with pytest.raises(InvalidInput, match="unknown to the estimator"):
        certified(model, y=Y * 7)
    if labels.dtype.kind != "U":
        return
    quick = LogisticRegression(max_iter=500).fit(X, labels[Y])
    threat = Threat(2, eps=0.05, bounds=(0, 8))
    found = attack(quick, X[::75].astype(np.float32), labels[Y[::75]], threat=threat, preset="black-box")
    assert [o.target for o in found] == Y[::75].tolist()


def test_an_estimator_that_knows_its_columns_by_name_gets_them():
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(frame, Y)
    plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(X, Y)
    run = certify.Smoothed(model, **SETTINGS).certify(frame[::30], Y[::30], n_max=300)
    assert [(r.label, r.radius) for r in run] == [(r.label, r.radius) for r in certified(plain)]


def test_images_are_flattened_for_an_estimator():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    forest = RandomForestClassifier(20, random_state=0).fit(x / 16, y)
    data = certify.data.load("digits", limit=3)
    run = certify.Smoothed(forest, sigma=0.1, data=data).certify(data, n_max=200)
    assert [r.target for r in run] == data.y.tolist()


def test_normalisation_goes_in_front_of_an_estimator_too():
    scaler = StandardScaler().fit(X)
    inside = LogisticRegression().fit(scaler.transform(X), Y)
    whole = make_pipeline(scaler, inside)
    model = certify.wrap(inside, mean=scaler.mean_, std=scaler.scale_)
    rows = torch.tensor(X[::9], dtype=torch.float32)
    np.testing.assert_allclose(model(rows), certify.wrap(whole)(rows), atol=1e-4)
    with pytest.raises(InvalidSetting, match="one column per class"):
        certify.wrap(inside, binary=True)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (RandomForestClassifier(), "has not been fitted"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "has not been fitted"),
        (RandomForestRegressor(2).fit(X, Y), "is no classifier"),
        (IsolationForest(n_estimators=2).fit(X), "is no classifier"),
        (
            MultiOutputClassifier(DecisionTreeClassifier()).fit(X, np.stack([Y, Y], 1)),
            "does not choose one",
        ),
        (RandomForestClassifier, "the class RandomForestClassifier was passed"),
        (NearestCentroid().fit(X, Y), "predict and .* choose different classes"),
    ],
)
def test_what_cannot_choose_a_class_is_refused(model, words):
    with pytest.raises(CertifyError, match=words):
        certified(model)


def test_an_estimator_in_a_run_is_told_apart_by_its_contents(tmp_path):
    one = RandomForestClassifier(3, random_state=0).fit(X, Y)
    two = RandomForestClassifier(3, random_state=1).fit(X, Y)
    rows = torch.tensor(X[::50], dtype=torch.float32)

    def run(model):
        return certify.Smoothed(model, **SETTINGS).certify(rows, n_max=200, store=tmp_path / "run")

    run(one)
    run(RandomForestClassifier(3, random_state=0).fit(X, Y))
    with pytest.raises(CertifyError, match="other settings"):
        run(two)
    for name, make in (PROBABLE | SCORED | LABELS).items():
        found = model_contents(certify.wrap(make().fit(X, Y)))
        assert found is not None
        assert found.unchecked == (), name


def test_forests_of_breast_cancer_are_certified_and_attacked_without_a_word():
    data = load_breast_cancer()
    scaler = StandardScaler().fit(data.data[100:])
    z = np.clip(np.round(scaler.transform(data.data) * 1024) / 1024, -8, 8).astype("float32")
    forest = RandomForestClassifier(30, random_state=0).fit(z[100:], data.target[100:])
    source = certify.data.as_dataset(z[:8], data.target[:8], low=-8, high=8, grid=2**-10)
    run = certify.Smoothed(forest, sigma=0.25, data=source).certify(source, n_max=300)
    assert sum(r.certified for r in run) >= 6
    with pytest.raises(InvalidModel, match="no gradients"):
        attack(forest, source, threat=Threat(2, eps=1.0, bounds=(-8, 8)), preset="quick")


def test_the_scores_of_an_estimator_are_one_fixed_function():
    scores = EstimatorScores(PROBABLE["forest"]().fit(X, Y), "predict_proba", chosen=True)
    rows = torch.tensor(X[:5], dtype=torch.float32)
    assert torch.equal(scores(rows), torch.cat([scores(row[None]) for row in rows]))


# -- how many classes -----------------------------------------------------------------------------


def test_classes_that_nothing_declares_are_counted_in_the_first_answer():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5)).eval()
    rows = torch.tensor(X[:3] / 8, dtype=torch.float32).mul(255).round() / 255
    smoothed = certify.Smoothed(net, 0.25)
    assert smoothed.num_classes is None
    counted = smoothed.certify(rows, n_max=200)
    told = certify.Smoothed(net, 0.25, num_classes=5).certify(rows, n_max=200)
    assert smoothed.num_classes == 5
    assert [r.counts for r in counted] == [r.counts for r in told]
    assert counted.settings == told.settings
    assert certify.Smoothed(net, 0.25).predict(rows, n=50, seed=0)[0].counts
    found = attack(certify.Smoothed(net, 0.25), rows, threat=Threat(2, eps=0.1), preset="smoothed")
    assert len(found) == 3
    with pytest.raises(InvalidModel, match="expected"):
        certify.Smoothed(torch.nn.Linear(4, 1).eval(), 0.25).certify(rows)
    with pytest.raises(InvalidInput, match="label 5"):
        certify.Smoothed(net, 0.25).certify(rows, [0, 1, 5])


def test_classes_of_a_segmenter_are_counted_alike():
    torch.manual_seed(0)
    net = torch.nn.Conv2d(1, 3, 1).eval()
    x = torch.zeros(1, 1, 4, 4)
    for ask in (
        lambda g: g.certify(x, n0=5, n=30),
        lambda g: g.votes(x, n=5, seed=0),
        lambda g: g.plain(x),
    ):
        g = certify.SmoothedSegmentation(net, 0.25)
        ask(g)
        assert g.num_classes == 3
