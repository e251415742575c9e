from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tfdist
from tfdist.cli.main import COMMANDS, main

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"]])
def test_help_lists_the_commands(capsys, argv):
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert all(f"  {name}" in said for name in COMMANDS)


@pytest.mark.parametrize("argv", [["launch", "--help"], ["launch", "--workers=2", "-h"], ["help", "launch"]])
def test_help_of_a_command(capsys, argv):
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: tfdist launch")
    assert "--log_dir=..." in said


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tfdist {tfdist.__version__}\n"


@pytest.mark.parametrize(
    "argv, said",
    [
        ([], "usage: tfdist COMMAND"),
        (["lanch"], "Did you mean: tfdist launch?"),
        (["train.py"], "Did you mean: tfdist launch train.py?"),
        (["configs/quick.yaml"], "Did you mean: tfdist train configs/quick.yaml?"),
        (["--workers=2"], "Did you mean: tfdist launch --workers=2?"),
        (["xyzzy"], "The commands are launch, train, doctor"),
        (["launch", "--wokers=2", "s.py"], "Unknown option --wokers. Did you mean --workers?"),
        (["doctor", "--timeout=2"], "Did you mean --timeout_seconds?"),
        (["doctor", "--timeout_seconds=-1"], "--timeout_seconds must be"),
    ],
)
def test_wrong_command_lines(capsys, argv, said):
    assert main(argv) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "what",
    [
        "from tfdist.cli.main import main; main(['--help'])",
        "from tfdist.cli.main import main; main(['launch', '--help'])",
        "from tfdist.cli.main import main; main(['doctor', '--help'])",
        "from tfdist.cli.main import main; main(['launch', 'no_such_script.py'])",
        "import tfdist.cluster; tfdist.cluster.resolve()",
        "import tfdist.launch",
    ],
)
def test_tensorflow_is_not_loaded(what):
    code = f"{what}; import sys; assert not {{'tensorflow', 'keras', 'numpy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)


def test_the_installed_command_and_the_module_are_the_same():
    beside_python = str(Path(sys.executable).with_name("tfdist"))
    for command in ([beside_python], [sys.executable, "-m", "tfdist"]):
        found = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
        assert found.stdout == f"tfdist {tfdist.__version__}\n"
