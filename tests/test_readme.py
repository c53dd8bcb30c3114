"""What the documents show works: Python runs, commands are understood, files are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

import bench.__main__
import featcache.cli
from conftest import photo
from featcache.backbones.weights import Weights
from onnx_files import cnn, write

ROOT = Path(__file__).parents[1]
DOCUMENTS = {
    path: path.read_text("utf-8")
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
    if path.name != "CHANGELOG.md"  # which tells of files that are gone
}
WITH_EXAMPLES = ("README.md", "docs/export.md", "docs/guide.md", "docs/serving.md")
TEXT = "".join(DOCUMENTS[ROOT / name] for name in WITH_EXAMPLES)
# The >>> examples run as doctests; the others here, on a smaller backbone and for less long.
EXAMPLES = [b for b in re.findall(r"```python\n(.*?)```", TEXT, re.S) if ">>>" not in b]
SHORTER = {
    "resnet50": "mobilenet",
    "mobilenet_v2": "pocket",
    "epochs=20": "epochs=1",
    '"tcp://scheduler:8786"': 'processes=False, n_workers=1, dashboard_address=":0"',
}
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", "".join(DOCUMENTS.values()), re.S)
    for line in block.replace("\\\n", " ").splitlines()
]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_python_examples_run(
    example: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for i in range(40):
        photo(tmp_path / "photos" / ("beagle" if i % 2 else "poodle") / f"{i}.jpg", i)
    write(tmp_path / "network.onnx", cnn())
    monkeypatch.chdir(tmp_path)
    random = Weights("random")
    monkeypatch.setattr("featcache.backbones.request.choose_weights", lambda *_: random)
    for long, short in SHORTER.items():
        example = example.replace(long, short)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_there_are_examples_and_commands() -> None:
    assert len(EXAMPLES) > 8
    assert len(COMMANDS) > 8


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("featcache ")])
def test_commands_are_understood(command: str) -> None:
    words = shlex.split(command)
    if words[1] == "bench":
        bench.__main__._parser("featcache bench").parse_args(words[2:])
    else:
        name, command, rest = featcache.cli.featcache.resolve_command(
            click.Context(featcache.cli.featcache), words[1:]
        )
        assert command is not None
        command.make_context(name, rest)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z0-9-]+)", TEXT))))
def test_make_targets_exist(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"^{target}:", makefile, re.M)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document: Path) -> None:
    text = DOCUMENTS[document]
    named = [*re.findall(r"`([\w/]+\.(?:py|cfg|json))\b", text), *re.findall(r"tests/[\w/]+", text)]
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    missing = [link for link in links if not (document.parent / link).exists()]
    roots = [ROOT, *(ROOT / package for package in ("featcache", "bench"))]
    missing += [
        name
        for name in set(named) - {"MANIFEST.json", "metadata.json"}  # which a run writes
        if not any((root / name).exists() or (root / f"{name}.py").exists() for root in roots)
    ]
    assert missing == []


@pytest.mark.parametrize(
    "command", re.findall(r"`pytest ([^`]+)`", DOCUMENTS[ROOT / "docs" / "reliability.md"])
)
def test_the_tests_of_an_attack_exist(command: str) -> None:
    words = shlex.split(command)
    found = {word: list(ROOT.glob(word)) for word in words if word.startswith("tests/")}
    assert found
    assert all(found.values())
    paths = [path for several in found.values() for path in several]
    if "-k" in words:
        chosen = words[words.index("-k") + 1]
        text = "".join(path.read_text("utf-8") for path in paths)
        assert re.search(rf"^def test_\w*{chosen}", text, re.M)
