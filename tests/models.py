"""Real models for tests: small scikit-learn pipelines exported to ONNX, and ONNX graphs broken on purpose.

Every export is compared with scikit-learn before use (an export can be silently wrong).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper
from onnx import numpy_helper as nh

from regate.config.model import Feature, ModelConfig, Output
from regate.scenarios.contracts import RunRequest, TargetSpec
from regate.scenarios.rows import Rows

OPSET = 17


def save(model: ModelProto, path: Path) -> TargetSpec:
    """Write with opset imports sorted: their order depends on PYTHONHASHSEED."""
    imports = sorted(model.opset_import, key=lambda entry: entry.domain)
    copies = [helper.make_operatorsetid(entry.domain, entry.version) for entry in imports]
    del model.opset_import[:]
    model.opset_import.extend(copies)
    data = model.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return TargetSpec(uri=str(path), digest="sha256:" + hashlib.sha256(data).hexdigest(), name=path.stem, version="1")


def config(**changes: Any) -> ModelConfig:
    """The configuration of the little loan model."""
    base: dict[str, Any] = {
        "model": "loan",
        "features": {
            "income": Feature(type="numeric", minimum=0, maximum=200_000),
            "age": Feature(type="numeric", minimum=18, maximum=90),
            "region": Feature(type="categorical", categories=("north", "south", "west")),
            "owner": Feature(type="boolean"),
        },
        "output": Output(type="binary", classes=("0", "1"), positive="1"),
        "cohorts": ("region", "owner"),
    }
    return ModelConfig.model_validate({**base, **changes})


@dataclass(frozen=True)
class Population:
    """Loan applicants; approval depends on income and age, never on region or owner."""

    income: np.ndarray
    age: np.ndarray
    region: np.ndarray
    owner: np.ndarray
    label: np.ndarray


def population(n: int, seed: int = 7) -> Population:
    rng = np.random.default_rng(seed)
    income = rng.uniform(10_000, 150_000, n)
    age = rng.uniform(18, 90, n)
    region = rng.choice(np.array(["north", "south", "west"], dtype=object), n)
    owner = rng.random(n) < 0.5
    label = (income / 1000 + age + rng.normal(0, 8, n) > 130).astype(np.int64)
    return Population(income, age, region, owner, label)


def rows(n: int = 2000, seed: int = 8, *, labelled: float = 1.0, source: str = "window") -> Rows:
    """A window of served requests; the served prediction is the rule without noise."""
    people = population(n, seed)
    served = np.array([str(int(i / 1000 + a > 130)) for i, a in zip(people.income, people.age, strict=True)], object)
    label = np.array([str(value) for value in people.label], dtype=object)
    label[np.random.default_rng(seed + 1).random(n) >= labelled] = None
    owner = np.array(["true" if value else "false" for value in people.owner], dtype=object)
    return Rows(
        features={"income": people.income, "age": people.age, "region": people.region, "owner": owner},
        prediction=served,
        label=label,
        source="window" if source == "window" else "reference",
    )


def train(path: Path, *, kind: str = "logistic", bias: str = "", impute: bool = True, flip: bool = False) -> TargetSpec:
    """Train, export with one named input a column, compare, save.

    ``bias``: a region whose applicants are refused in training, ``west*owner`` only its owners (an unfair model).
    ``impute=False`` leaves the NaN trap open. ``flip`` trains on inverted labels: worse than guessing.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    people = population(4000, 3)
    label = 1 - people.label if flip else people.label.copy()
    if bias:
        region, _, only_owners = bias.partition("*")
        label[(people.region == region) & (people.owner if only_owners else True)] = 0
    names = ["income", "age", "owner", "region"]  # ColumnTransformer works by position: pandas is not installed
    table = np.empty((len(label), 4), dtype=object)
    for i, column in enumerate((people.income, people.age, people.owner)):
        table[:, i] = column.astype(np.float32)
    table[:, 3] = people.region
    steps = [("scale", StandardScaler())]
    if impute:
        steps.insert(0, ("impute", SimpleImputer()))
    prepare = ColumnTransformer(
        [
            ("numbers", Pipeline(steps), [0, 1, 2]),
            ("region", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [3]),
        ]
    )
    model = LogisticRegression(max_iter=500) if kind == "logistic" else DecisionTreeClassifier(max_depth=5)
    pipeline = Pipeline([("prepare", prepare), ("model", model)]).fit(table, label)
    types = [(name, FloatTensorType([None, 1])) for name in names[:3]] + [("region", StringTensorType([None, 1]))]
    exported = convert_sklearn(
        pipeline, initial_types=types, target_opset={"": OPSET, "ai.onnx.ml": 3}, options={id(model): {"zipmap": False}}
    )
    spec = save(exported, path)
    _compare(pipeline, names, table, path)
    return spec


def _compare(pipeline: Any, names: list[str], table: np.ndarray, path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    feed = {name: table[:, [i]].astype(np.float32 if i < 3 else object) for i, name in enumerate(names)}
    labels, scores = session.run(None, feed)[:2]
    assert (np.asarray(labels) == pipeline.predict(table)).mean() > 0.999
    assert np.abs(np.asarray(scores) - pipeline.predict_proba(table)).max() < 1e-4


# --- ONNX graphs by hand: every input column is there, so that only the flaw differs -------------------------------

INPUTS = (("income", TensorProto.FLOAT), ("age", TensorProto.FLOAT), ("region", TensorProto.STRING))


def graph(path: Path, nodes: list[Any], score: str = "p", constants: dict[str, np.ndarray] | None = None) -> TargetSpec:
    """A binary model whose nodes compute ``score`` [n, 1] (probability of class 1) from the inputs."""
    tail = [
        helper.make_node("Constant", [], ["one_"], value=nh.from_array(np.array([[1.0]], np.float32))),
        helper.make_node("Constant", [], ["half_"], value=nh.from_array(np.array([[0.5]], np.float32))),
        helper.make_node("Sub", ["one_", score], ["q_"]),
        helper.make_node("Concat", ["q_", score], ["probabilities"], axis=1),
        helper.make_node("GreaterOrEqual", [score, "half_"], ["yes_"]),
        helper.make_node("Cast", ["yes_"], ["label"], to=TensorProto.INT64),
    ]
    made = helper.make_graph(
        [*nodes, *tail],
        "g",
        [helper.make_tensor_value_info(name, kind, [None, 1]) for name, kind in INPUTS],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None, 1]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        [nh.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_operatorsetid("", OPSET)])
    model.ir_version = 8
    return save(model, path)


def base_score(out: str = "base") -> list[Any]:
    """Sigmoid of (income / 1000 + age - 130) / 8: right on average, NaN for a missing number."""
    return [
        helper.make_node("Mul", ["income", "thousandth"], ["k_"]),
        helper.make_node("Add", ["k_", "age"], ["sum_"]),
        helper.make_node("Sub", ["sum_", "cut"], ["centred_"]),
        helper.make_node("Mul", ["centred_", "slope"], ["scaled_"]),
        helper.make_node("Sigmoid", ["scaled_"], [out]),
    ]


BASE = {
    "thousandth": np.array([[0.001]], np.float32),
    "cut": np.array([[130.0]], np.float32),
    "slope": np.array([[0.125]], np.float32),
}


def busy_loop(turns: int, score_in: str = "base", score_out: str = "p") -> list[Any]:
    """A Loop that multiplies by one ``turns`` times: a slow (or, with many turns, a hanging) model."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond_in"], ["cond_out"]),
            helper.make_node("Constant", [], ["unit"], value=nh.from_array(np.array([[1.0]], np.float32))),
            helper.make_node("Mul", ["v_in", "unit"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", TensorProto.FLOAT, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, [None, 1]),
        ],
    )
    return [
        helper.make_node("Constant", [], ["turns_"], value=nh.from_array(np.array(turns, np.int64))),
        helper.make_node("Constant", [], ["go_"], value=nh.from_array(np.array(True))),
        helper.make_node("Loop", ["turns_", "go_", score_in], [score_out], body=body),
    ]


def slow(path: Path, turns: int) -> TargetSpec:
    return graph(path, [*base_score(), *busy_loop(turns)], constants=BASE)


def hungry(path: Path, floats: int) -> TargetSpec:
    """Allocates and sums ``floats`` floats at every call."""
    nodes = [
        *base_score(),
        helper.make_node("Expand", ["zero", "size"], ["big_"]),
        helper.make_node("Add", ["big_", "big_"], ["twice_"]),
        helper.make_node("ReduceSum", ["twice_"], ["nothing_"], keepdims=0),
        helper.make_node("Add", ["base", "nothing_"], ["p"]),
    ]
    return graph(path, nodes, constants={**BASE, "zero": np.zeros(1, np.float32), "size": np.array([floats], np.int64)})


def random_scores(path: Path) -> TargetSpec:
    """Adds unseeded noise to its score: not a function of its input."""
    nodes = [
        *base_score(),
        helper.make_node("RandomUniformLike", ["base"], ["noise_"], low=0.0, high=0.1),
        helper.make_node("Mul", ["base", "shrink"], ["small_"]),
        helper.make_node("Add", ["small_", "noise_"], ["p"]),
    ]
    return graph(path, nodes, constants={**BASE, "shrink": np.array([[0.9]], np.float32)})


def batch_dependent(path: Path) -> TargetSpec:
    """Normalises income by the mean of the batch: an answer depends on the neighbours."""
    nodes = [
        helper.make_node("ReduceMean", ["income"], ["mean_"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["income", "mean_"], ["centred_"]),
        helper.make_node("Mul", ["centred_", "scale"], ["scaled_"]),
        helper.make_node("Sigmoid", ["scaled_"], ["p"]),
    ]
    return graph(path, nodes, constants={"scale": np.array([[1e-4]], np.float32)})


def order_dependent(path: Path) -> TargetSpec:
    """Adds the running sum of ages above it: an answer depends on the order of the rows."""
    nodes = [
        *base_score(),
        helper.make_node("CumSum", ["age", "axis"], ["running_"]),
        helper.make_node("Mul", ["running_", "tiny"], ["shift_"]),
        helper.make_node("Add", ["base", "shift_"], ["raw_"]),
        helper.make_node("Clip", ["raw_", "low", "high"], ["p"]),
    ]
    extra = {
        "axis": np.array(0, np.int64),
        "tiny": np.array([[1e-5]], np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(1, np.float32),
    }
    return graph(path, nodes, constants={**BASE, **extra})


def plain(path: Path) -> TargetSpec:
    """The honest model by hand; NaN in gives NaN out (the trap that fuzzing must find)."""
    return graph(path, base_score("p"), constants=BASE)


def undefined_for_the_young(path: Path) -> TargetSpec:
    """A square root of (age - 30): NaN for valid inputs."""
    nodes = [
        helper.make_node("Sub", ["age", "thirty"], ["over_"]),
        helper.make_node("Sqrt", ["over_"], ["root_"]),
        helper.make_node("Sigmoid", ["root_"], ["p"]),
    ]
    return graph(path, nodes, constants={"thirty": np.array([[30.0]], np.float32)})


def chaotic(path: Path) -> TargetSpec:
    """The fraction of 50 x income: noise below the precision of the input decides."""
    nodes = [
        helper.make_node("Mul", ["income", "fifty"], ["big_"]),
        helper.make_node("Floor", ["big_"], ["whole_"]),
        helper.make_node("Sub", ["big_", "whole_"], ["p"]),
    ]
    return graph(path, nodes, constants={"fifty": np.array([[50.3]], np.float32)})


def whole_ages_only(path: Path) -> TargetSpec:
    """Takes age as int64: what is served with a fraction is refused."""
    made = helper.make_graph(
        [
            helper.make_node("Cast", ["age"], ["a_"], to=TensorProto.FLOAT),
            helper.make_node("Sigmoid", ["a_"], ["p"]),
            helper.make_node("Sub", ["one", "p"], ["q"]),
            helper.make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
        ],
        "g",
        [helper.make_tensor_value_info("age", TensorProto.INT64, [None, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [nh.from_array(np.array([[1.0]], np.float32), "one")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_operatorsetid("", OPSET)])
    model.ir_version = 8
    return save(model, path)


def constant(path: Path, probability: float) -> TargetSpec:
    nodes = [
        helper.make_node("Mul", ["income", "nil"], ["zero_"]),
        helper.make_node("Add", ["zero_", "value"], ["p"]),
    ]
    return graph(
        path, nodes, constants={"nil": np.zeros((1, 1), np.float32), "value": np.full((1, 1), probability, np.float32)}
    )


def matrix(path: Path, width: int = 2) -> TargetSpec:
    """One float matrix input [n, d]: probability from the first column over the second."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["raw_"]),
        helper.make_node("Sigmoid", ["raw_"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
    ]
    weights = np.zeros((width, 1), np.float32)
    weights[0], weights[1] = 1.0, -1.0
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [nh.from_array(weights, "w"), nh.from_array(np.array([[1.0]], np.float32), "one")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_operatorsetid("", OPSET)])
    model.ir_version = 8
    return save(model, path)


def request(target: TargetSpec, **changes: Any) -> RunRequest:
    base: dict[str, Any] = {
        "id": "00000000-0000-5000-8000-000000000001",
        "scope": "default/loan/production",
        "tenant": "default",
        "model": "loan",
        "model_version": "1",
        "deployment": "production",
        "target": target,
        "seed": 11,
        "trigger_kind": "manual",
        "trigger_id": "test",
        "requested_ms": 1_000,
        "deadline_ms": 10_000_000,
    }
    return RunRequest.model_validate({**base, **changes})


def linear(path: Path, weights: np.ndarray, bias: float) -> TargetSpec:
    """One float matrix input [n, d]: the probability is the sigmoid of a weighted sum."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["raw_"]),
        helper.make_node("Add", ["raw_", "b"], ["sum_"]),
        helper.make_node("Sigmoid", ["sum_"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(weights)])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [
            nh.from_array(weights.astype(np.float32)[:, None], "w"),
            nh.from_array(np.array([[bias]], np.float32), "b"),
            nh.from_array(np.array([[1.0]], np.float32), "one"),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_operatorsetid("", OPSET)])
    model.ir_version = 8
    return save(model, path)
