"""The suite installs as tox.ini says: exact versions, five packages with their data, and the commands of the README."""

import ast
import configparser
import os
import re
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PACKAGES = ("baselines", "benchmark", "flexiact", "metrics", "reports")
WITHOUT_DEPENDENCIES = ("mmcv-lite", "mmengine", "mmpose", "xtcocotools")  # installed by tox.ini one by one
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def constraints() -> dict[str, str]:
    """Version by canonical name; every line that is not a comment has to be one exact pin."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9][A-Za-z0-9.]*)", line)
            assert match, f"constraints.txt: not an exact version of a public release: {line!r}"
            pins[canonicalize_name(match[1])] = match[2]
    return pins


def requirements() -> list[Requirement]:
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    # Whoever has run tox has tox: it is the one tool that nothing installs, so nothing constrains it either.
    names = [*project["dependencies"], *extras["pose"], *extras["test"], *extras["dev"]]
    return [parsed for parsed in map(Requirement, names) if parsed.name != "tox"]


def tox_ini() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    return parser


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    pins = constraints()
    wrong = [r.name for r in requirements() if not r.specifier.contains(Version(pins[canonicalize_name(r.name)]))]
    assert wrong == []


@pytest.mark.parametrize("name", WITHOUT_DEPENDENCIES)
def test_what_is_installed_without_its_dependencies_is_pinned(name: str) -> None:
    assert name in constraints()
    assert name in tox_ini()["suite"]["setup"]


def imported_modules() -> set[str]:
    """First part of every absolute import in the five packages, standard library and own packages left out."""
    modules = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    modules.add(node.module.partition(".")[0])
    for_type_checkers = {"_typeshed"}
    return modules - set(sys.stdlib_module_names) - set(PACKAGES) - for_type_checkers


def test_everything_imported_is_declared() -> None:
    providers = metadata.packages_distributions()
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    declared = [
        Requirement(line).name
        for line in [*project["dependencies"], *(line for name in ("pose", "ray") for line in extras[name])]
    ]
    declared = [canonicalize_name(name) for name in [*declared, *WITHOUT_DEPENDENCIES]]
    undeclared = {
        module
        for module in imported_modules()
        if not any(canonicalize_name(name) in declared for name in providers.get(module, []))
    }
    assert undeclared == set()


def test_torch_and_torchvision_are_a_pair() -> None:
    wanted = [Requirement(line) for line in metadata.requires("torchvision") or []]
    (torch,) = [requirement for requirement in wanted if requirement.name == "torch"]
    assert torch.specifier.contains(Version(constraints()["torch"]))
    assert metadata.version("torch").split("+")[0] in torch.specifier


def test_torchvision_has_its_compiled_operators() -> None:
    import torch
    import torchvision  # noqa: F401 - registers the operators

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert torch.ops.torchvision.nms(boxes, torch.tensor([1.0, 0.5]), 0.5).tolist() == [0]


@pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="only the environment that tox.ini makes is exact")
def test_environment_is_exactly_what_was_tested() -> None:
    pins = constraints()
    # The environment's own folder alone: setuptools, once imported, adds the packages that it carries to sys.path.
    found = metadata.distributions(path=[sysconfig.get_path("purelib")])
    installed = {canonicalize_name(distribution.name): distribution.version for distribution in found}
    own = {canonicalize_name(PROJECT["project"]["name"]), "pip"}
    assert {name: version for name, version in installed.items() if name not in own and pins.get(name) != version} == {}


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml", "tox.ini", ".ci/run"])
def test_installation_names_no_index_and_no_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"://|index-url|find-links|trusted-host|/home/|/root/|/opt/|/usr/(?!bin/env)", text)


def shipped_files() -> set[Path]:
    """Modules and package data that pyproject.toml puts into a wheel, read as setuptools reads them."""
    from setuptools import find_packages

    setup = PROJECT["tool"]["setuptools"]
    found = find_packages(str(ROOT), include=setup["packages"]["find"]["include"])
    folders = [ROOT.joinpath(*name.split(".")) for name in found]
    files = {path for folder in folders for path in folder.glob("*.py")}
    for name, patterns in setup["package-data"].items():
        files |= {path for pattern in patterns for path in ROOT.joinpath(*name.split(".")).glob(pattern)}
    return files


def test_every_file_of_the_five_packages_is_shipped() -> None:
    published = ROOT / "reports" / "published"  # to be read, not imported
    files = {
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and not path.name.startswith(".") and "__pycache__" not in path.parts
    }
    program = {path for path in files if published not in path.parents}
    assert {str(path.relative_to(ROOT)) for path in program - shipped_files()} == set()


def test_readme_commands_are_what_tox_and_ci_run() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "pip install tox && tox run -e bench\n" in readme
    assert "pip install tox && tox run -e py311\n" in readme
    environments = {name.removeprefix("testenv:") for name in tox_ini().sections()}
    for names in re.findall(r"tox run -e ([\w,]+)", readme + (ROOT / ".ci/run").read_text()):
        assert set(names.split(",")) <= environments


def test_changelog_has_the_current_version() -> None:
    assert f"## {PROJECT['project']['version']}" in (ROOT / "CHANGELOG.md").read_text()
