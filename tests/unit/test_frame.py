"""The frame: package list, one-way imports, pure cores, module sizes, no pickle, no machine paths."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("config", "detectors", "scenarios", "daemon")
MAY_IMPORT = {
    "config": {"config"},
    "detectors": {"config", "detectors"},
    "scenarios": {"config", "scenarios"},
    "daemon": set(PACKAGES),
}
# Cores that must not know a bus, a clock, a scheduler or a logger.
PURE = ("detectors", "daemon/gate", "config")
IMPURE_MODULES = (
    "kafka",
    "apscheduler",
    "structlog",
    "logging",
    "socket",
    "asyncio",
    "threading",
    "onnxruntime",
)
IMPURE_CALLS = {
    "time.time",
    "time.monotonic",
    "time.sleep",
    "time.perf_counter",
    "datetime.now",
    "datetime.utcnow",
    "datetime.datetime.now",
    "uuid.uuid4",
    "os.urandom",
    "open",
    "print",
}


def sources(*under: str) -> list[Path]:
    return sorted(path for name in under for path in (ROOT / name).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_folder_with_code_is_in_the_package_list() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    on_disk = {
        "regate." + str(folder.relative_to(ROOT)).replace("/", ".")
        for name in PACKAGES
        for folder in [ROOT / name, *(ROOT / name).rglob("*")]
        if folder.is_dir()
        and folder.name != "__pycache__"
        and any(file.suffix != ".pyc" for file in folder.iterdir() if file.is_file())
    }
    assert declared == on_disk


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports(path)
        if (match := re.match(r"regate\.(\w+)", name)) and match[1] not in MAY_IMPORT[package]
    ]
    bare = [
        f"{path.relative_to(ROOT)} imports bare {name}"
        for path in sources(package)
        for name in imports(path)
        if name.split(".")[0] in PACKAGES
    ]
    assert wrong + bare == []


def test_nothing_outside_the_bus_imports_kafka() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES)
        if not path.is_relative_to(ROOT / "daemon/bus")
        and any(name == "kafka" or name.startswith("kafka.") for name in imports(path))
    ]
    assert wrong == []


def test_pure_cores_import_with_the_impure_modules_blocked() -> None:
    modules = [
        "regate." + str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for path in sources(*PURE)
    ]
    program = (
        "import sys\n"
        f"blocked = {IMPURE_MODULES[:3]!r}\n"
        "for name in blocked: sys.modules[name] = None\n"
        f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pure_cores_read_no_clock_and_do_no_io() -> None:
    wrong = []
    for path in sources("detectors", "daemon/gate"):
        for name in imports(path):
            if name.split(".")[0] in IMPURE_MODULES:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {ast.unparse(node.func)}")
    assert wrong == []


def test_no_pickle_no_eval_no_unsafe_yaml() -> None:
    wrong = []
    for path in sources(*PACKAGES):
        if {name.split(".")[0] for name in imports(path)} & {
            "pickle",
            "cPickle",
            "dill",
            "joblib",
            "shelve",
            "marshal",
        }:
            wrong.append(f"{path.relative_to(ROOT)} imports a pickler")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {name}")
                if any(key.arg == "allow_pickle" and ast.unparse(key.value) == "True" for key in node.keywords):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} allows pickle")
    assert wrong == []


def test_modules_stay_small_and_well_named() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources(*PACKAGES)}
    assert {name: size for name, size in sizes.items() if size > 600} == {}
    assert [name for name in sizes if Path(name).stem in {"utils", "helpers", "manager", "common", "misc"}] == []


def test_typing_tree_mirrors_the_packages() -> None:
    for name in PACKAGES:
        assert (ROOT / ".typing/regate" / name).resolve() == ROOT / name
