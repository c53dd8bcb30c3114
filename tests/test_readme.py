"""What README and guide show works: its Python runs, its commands are understood."""

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

ROOT = Path(__file__).parents[1]
TEXT = "".join((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/guide.md"))
# The >>> examples run as doctests; the others here, on a smaller backbone and for less long.
EXAMPLES = [b for b in re.findall(r"```python\n(.*?)```", TEXT, re.S) if ">>>" not in b]
SHORTER = {"resnet50": "mobilenet", "epochs=20": "epochs=1"}
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S)
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
    monkeypatch.chdir(tmp_path)
    random = Weights("random")
    monkeypatch.setattr("featcache.backbones.request.choose_weights", lambda *_: random)
    for long, short in SHORTER.items():
        example = example.replace(long, short)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_there_are_examples_and_commands() -> None:
    assert len(EXAMPLES) == 3
    assert len(COMMANDS) > 8


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.startswith(("featcache ", "python -m bench"))]
)
def test_commands_are_understood(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "featcache":
        name, command, rest = featcache.cli.featcache.resolve_command(
            click.Context(featcache.cli.featcache), words[1:]
        )
        assert command is not None
        command.make_context(name, rest)
    else:
        bench.__main__._parser().parse_args(words[3:])


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z-]+)", TEXT))))
def test_make_targets_exist(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"^{target}:", makefile, re.M)
