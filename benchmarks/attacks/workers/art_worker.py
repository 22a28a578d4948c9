"""Attacks by the Adversarial Robustness Toolbox on one scikit-learn target: every query that it gets, in order.

    art_worker.py JOB.json

Runs in an environment of its own and imports nothing of regate. The job names an npz with the target's training rows,
the attackers' own rows and the normal rows to be answered; answers and logs go to another npz, what each log is to a
JSON beside it. Attackers work on features scaled to [0, 1]; the log has what the target was asked.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from art.attacks.evasion import (
    BoundaryAttack,
    GeoDA,
    HopSkipJump,
    SignOPTAttack,
    SimBA,
    SquareAttack,
    ZooAttack,
)
from art.attacks.extraction import CopycatCNN, KnockoffNets
from art.attacks.inference.membership_inference import LabelOnlyDecisionBoundary, MembershipInferenceBlackBox
from art.attacks.inference.model_inversion import MIFace
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
from art.estimators.classification.classifier import ClassGradientsMixin
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
np.mat = np.asmatrix  # noqa: NPY201  ART's GeoDA was written for numpy 1

EPSILON = 0.1  # what an evasion may change of a feature, of its range


class Capped(BaseException):
    """The attacker has no queries left. No attack may catch it."""


class Target:
    """The model as an attacker meets it: rows in [0, 1] in, probabilities out; every row is kept."""

    def __init__(self, model: Any, low: np.ndarray, span: np.ndarray, whole: np.ndarray, cap: int) -> None:
        self.model, self.low, self.span, self.whole, self.cap = model, low, span, whole, cap
        self.rows: list[np.ndarray] = []
        self.answers: list[np.ndarray] = []
        self.asked = 0

    def __call__(self, unit: np.ndarray) -> np.ndarray:
        flat = np.asarray(unit, dtype=np.float64).reshape(len(unit), -1)[:, : len(self.low)]
        x = self.low + np.clip(flat, 0.0, 1.0) * self.span
        x[:, self.whole] = np.rint(x[:, self.whole])
        x = x[: max(self.cap - self.asked, 0)]
        if len(x):
            p = self.model.predict_proba(x)
            self.rows.append(x)
            self.answers.append(p)
            self.asked += len(x)
        if len(x) < len(unit):
            raise Capped
        return np.asarray(p)


class Thief(BlackBoxClassifierNeuralNetwork):  # type: ignore[misc]
    """A logistic regression that an extraction trains on the answers it got."""

    def fit(self, x: np.ndarray, y: np.ndarray, **_kwargs: Any) -> None:
        labels = y.argmax(axis=1)
        if len(np.unique(labels)) > 1:
            self.stolen = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x, labels)

    def fidelity(self, x: np.ndarray, answers: np.ndarray) -> float | None:
        stolen = getattr(self, "stolen", None)
        return None if stolen is None else float((stolen.predict(x) == answers).mean())


class Sloped(BlackBoxClassifierNeuralNetwork, ClassGradientsMixin):  # type: ignore[misc]
    """Gradients from pairs of queries: what MIFace has of a model that only answers."""

    def class_gradient(self, x: np.ndarray, label: Any = None, **_kwargs: Any) -> np.ndarray:
        out = []
        for row, wanted in zip(x, np.broadcast_to(label, len(x)), strict=True):
            steps = np.random.normal(size=(10, *row.shape)) / 16  # noqa: NPY002
            p = self.predict(np.concatenate([row + steps, row - steps]))[:, wanted]
            out.append(((p[:10] - p[10:])[:, None] * steps).mean(axis=0) * 128.0)
        return np.array(out)[:, None]


def image_shape(width: int) -> tuple[int, int, int]:
    """Return the square that features are laid out in, for attacks that want pictures; what is over is not sent."""
    side = int(np.ceil(np.sqrt(width)))
    return 1, side, side


def image(x: np.ndarray) -> np.ndarray:
    shape = image_shape(x.shape[1])
    return np.pad(x, ((0, 0), (0, shape[1] * shape[2] - x.shape[1]))).reshape(len(x), *shape)


def trained(data: Any, seed: int) -> Any:
    if str(data["target"]) == "trees":
        return GradientBoostingClassifier(n_estimators=60, random_state=seed).fit(data["train_x"], data["train_y"])
    network = MLPClassifier((64,), max_iter=300, random_state=seed)
    return make_pipeline(StandardScaler(), network).fit(data["train_x"], data["train_y"])


class Job:
    """All attacks on one target."""

    def __init__(self, data: Any, seed: int, cap: int) -> None:
        self.data, self.seed, self.cap = data, seed, cap
        self.model = trained(data, seed)
        self.low, self.span = data["low"], data["high"] - data["low"]
        self.own = (data["attacker_x"] - self.low) / self.span
        self.own_class = self.model.predict(data["attacker_x"]).astype(int)
        self.classes = len(self.model.classes_)

    def estimator(self, target: Target, pictures: bool = False, least: int = 2) -> BlackBoxClassifierNeuralNetwork:
        width = self.own.shape[1]
        more = max(least - self.classes, 0)
        return BlackBoxClassifierNeuralNetwork(
            lambda unit: np.pad(target(unit), ((0, 0), (0, more))),
            input_shape=image_shape(width) if pictures else (width,),
            nb_classes=self.classes + more,
            channels_first=True,
            clip_values=(0.0, 1.0),
        )

    def evade(self, make: Callable[[Any], Any], target: Target, at: int, pictures: bool) -> None:
        estimator = self.estimator(target, pictures, least=3)  # SignOPT refuses two classes; a third is never answered
        x = self.own[at : at + 1].astype(np.float32)
        y = np.eye(estimator.nb_classes, dtype=np.float32)[self.own_class[at : at + 1]]
        make(estimator).generate(image(x) if pictures else x, y=y)

    def extract(self, make: Callable[[Any], Any], target: Target, rows: np.ndarray) -> float | None:
        width = self.own.shape[1]
        thief = Thief(lambda _: None, input_shape=(width,), nb_classes=self.classes, clip_values=(0.0, 1.0))
        make(self.estimator(target)).extract(rows.astype(np.float32), thieved_classifier=thief)
        return thief.fidelity(self.own, self.own_class)

    def episode(self, name: str, number: int, whole: np.ndarray) -> tuple[Target, dict[str, Any]]:
        seed = self.seed * 1000 + number
        rng = np.random.default_rng((seed, len(name)))
        np.random.seed(seed)  # noqa: NPY002  (ART draws from the global generator)
        target = Target(self.model, self.low, self.span, whole, self.cap)
        at = int(rng.integers(len(self.own)))
        about: dict[str, Any] = {"attack": name, "episode": number, "origin": None, "goal": None}
        began = time.perf_counter()
        try:
            if name in EVASIONS:
                make, pictures = EVASIONS[name]
                about |= {"goal": "flip" if name in BOUNDED else "near", "origin": self.data["attacker_x"][at].tolist()}
                about["class"] = int(self.own_class[at])
                self.evade(make, target, at, pictures)
            elif name in EXTRACTIONS:
                make, draw = EXTRACTIONS[name]
                about["goal"] = "steal"
                about["fidelity"] = self.extract(lambda one: make(one, self.cap), target, draw(self.own, rng, self.cap))
            else:
                OTHERS[name](self, target, about, rng, at)
        except Capped:
            about["capped"] = True
        except Exception as error:  # noqa: BLE001  (an attack that does not run is a row of the table)
            about["error"] = f"{type(error).__name__}: {error}"[:200]
        about["seconds"] = round(time.perf_counter() - began, 2)
        return target, about


EVASIONS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "HopSkipJump": (lambda one: HopSkipJump(one, targeted=False, max_iter=50, init_eval=20, verbose=False), False),
    "Boundary": (
        lambda one: BoundaryAttack(one, targeted=False, max_iter=500, delta=0.05, epsilon=0.05, verbose=False),
        False,
    ),
    "SignOPT": (lambda one: SignOPTAttack(one, targeted=False, num_trial=50, k=50, verbose=False), False),
    "GeoDA": (
        lambda one: GeoDA(one, sub_dim=min(one.input_shape[1:]), max_iter=500, bin_search_tol=0.01, verbose=False),
        True,
    ),
    "Square": (
        lambda one: SquareAttack(one, eps=EPSILON, max_iter=600, p_init=0.5, nb_restarts=3, verbose=False),
        True,
    ),
    "SimBA": (lambda one: SimBA(one, attack="px", epsilon=EPSILON, max_iter=600, verbose=False), True),
    "ZOO": (
        lambda one: ZooAttack(
            one, max_iter=60, nb_parallel=5, use_resize=False, use_importance=False, variable_h=0.05, learning_rate=0.1,
            initial_const=1.0, verbose=False,
        ),
        False,
    ),
}  # fmt: skip


# These change little by construction: they are done when the class is another.
BOUNDED = ("Square", "SimBA", "ZOO")


def mixes(own: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    """Return rows whose values are real ones, each of another row."""
    picked = rng.integers(len(own), size=(n, own.shape[1]))
    return np.asarray(own[picked, np.arange(own.shape[1])])


def some(own: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    return np.asarray(own[rng.permutation(len(own))[:n]])


def knockoff(one: Any, cap: int) -> Any:
    return KnockoffNets(one, nb_stolen=cap, nb_epochs=1, sampling_strategy="random", verbose=False)


def copycat(one: Any, cap: int) -> Any:
    return CopycatCNN(one, nb_stolen=cap, nb_epochs=1)


Draw = Callable[[np.ndarray, np.random.Generator, int], np.ndarray]
EXTRACTIONS: dict[str, tuple[Callable[[Any, int], Any], Draw]] = {
    "KnockoffNets uniform": (knockoff, lambda own, rng, n: rng.random((n, own.shape[1]))),
    "KnockoffNets mixes": (knockoff, mixes),
    "KnockoffNets in-domain": (knockoff, some),
    "CopycatCNN noise": (copycat, lambda own, rng, n: np.clip(rng.normal(0.5, 0.25, (n, own.shape[1])), 0, 1)),
}


def invert(job: Job, target: Target, about: dict[str, Any], rng: np.random.Generator, at: int) -> None:
    """MIFace; it wants gradients, and has them from queries. With a threshold of 1 it goes on to its last query."""
    wanted = int(rng.integers(job.classes))
    about |= {"goal": "invert", "class": wanted}
    width = job.own.shape[1]
    gradient = Sloped(target, input_shape=(width,), nb_classes=job.classes, clip_values=(0.0, 1.0))
    start = np.full((1, job.own.shape[1]), 0.5, dtype=np.float32) if about["episode"] % 2 else job.own[at : at + 1]
    attack = MIFace(gradient, max_iter=200, threshold=1.0, learning_rate=0.1, verbose=False)
    attack.infer(start.astype(np.float32), np.eye(job.classes)[[wanted]])


def membership(job: Job, target: Target, _about: dict[str, Any], rng: np.random.Generator, _at: int) -> None:
    """An attack model on the answers to rows that are members and rows that are not."""
    members = (job.data["train_x"] - job.low) / job.span
    inside, outside = rng.permutation(len(members)), rng.permutation(len(job.own))
    n = min(job.cap // 4, len(members) // 2, len(job.own) // 2)
    classes = job.data["train_y"].astype(int)
    attack = MembershipInferenceBlackBox(job.estimator(target), attack_model_type="rf")
    here, there = inside[:n], outside[:n]
    one = np.eye(job.classes)
    attack.fit(
        members[here].astype(np.float32), one[classes[here]],
        job.own[there].astype(np.float32), one[job.own_class[there]],
    )  # fmt: skip
    attack.infer(members[inside[n : 2 * n]].astype(np.float32), one[classes[inside[n : 2 * n]]])
    attack.infer(job.own[outside[n : 2 * n]].astype(np.float32), one[job.own_class[outside[n : 2 * n]]])


def label_only(job: Job, target: Target, _about: dict[str, Any], _rng: np.random.Generator, at: int) -> None:
    attack = LabelOnlyDecisionBoundary(job.estimator(target), distance_threshold_tau=0.1)
    y = np.eye(job.classes)[job.own_class[at : at + 5]]
    attack.infer(job.own[at : at + 5].astype(np.float32), y, max_iter=3, init_eval=10, max_eval=100, verbose=False)


OTHERS: dict[str, Callable[[Job, Target, dict[str, Any], np.random.Generator, int], None]] = {
    "MIFace": invert,
    "membership, black box": membership,
    "membership, label only": label_only,
}
# Attackers who keep to what a form or a picture can hold: the same, rounded where features are whole numbers.
ROUNDED = ("HopSkipJump", "Boundary", "Square", "KnockoffNets uniform")


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    data = np.load(job["data"])
    work = Job(data, job["seed"], job["cap"])
    kept: dict[str, np.ndarray] = {
        "normal": work.model.predict_proba(data["normal"]),
        "own_class": work.own_class,
    }
    logs: list[dict[str, Any]] = []
    plain, both = data["codes"], data["codes"] | data["whole"]  # a category has a name, nothing between two
    for name in (*EVASIONS, *EXTRACTIONS, *OTHERS):
        for whole in (plain, both):
            if whole is not plain and (name not in ROUNDED or not data["whole"].any()):
                continue
            for number in range(job["episodes"]):
                target, about = work.episode(name, number, whole)
                if whole is not plain:
                    about["attack"] = f"{name}, rounded"
                about["queries"] = target.asked
                if target.asked:
                    kept[f"x{len(logs)}"] = np.concatenate(target.rows)
                    kept[f"p{len(logs)}"] = np.concatenate(target.answers)
                logs.append(about)
                print(job["data"].rsplit("/", 1)[-1], about["attack"], number, target.asked, about["seconds"],
                      about.get("error", ""), flush=True)  # fmt: skip
    np.savez_compressed(job["out"], **kept)
    accuracy = float((work.own_class == data["attacker_y"]).mean())
    Path(job["out"]).with_suffix(".json").write_text(json.dumps({"accuracy": accuracy, "logs": logs}))


if __name__ == "__main__":
    main()
