from __future__ import annotations

import subprocess
import sys

import pytest

from tfdist.cli.flags import parse
from tfdist.cli.main import main
from tfdist.cli.verify import _options, define_flags

pytestmark = pytest.mark.unit


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("")
    return str(path)


def options_of(*argv):
    values = define_flags()
    return _options(values, parse(values, "verify", argv))


def test_defaults(script):
    options = options_of(script)
    assert (options.workers, options.accumulate, options.steps, options.float64) == (2, 1, 20, False)
    assert options.json_path is None
    assert options.keep is None


def test_what_stands_behind_the_script_belongs_to_it(script):
    options = options_of("--workers=3", "--float64", script, "--workers=5", "--steps", "7")
    assert (options.workers, options.steps, options.float64) == (3, 20, True)
    assert options.arguments == ("--workers=5", "--steps", "7")


def test_one_worker_may_accumulate(script):
    options = options_of("--workers=1", "--accumulate=4", script)
    assert (options.workers, options.accumulate) == (1, 4)


@pytest.mark.parametrize(
    "argv, said",
    [
        ([], "A script must be given. Write for example: tfdist verify"),
        (["--steps=0", "SCRIPT"], "steps must be at least 1. Received: steps=0"),
        (["--workers=1", "SCRIPT"], "workers must be at least 2. Received: workers=1"),
        (["--accumulate=0", "SCRIPT"], "accumulate must be at least 1"),
        (["--timeout_seconds=0", "SCRIPT"], "timeout_seconds must be at least 1"),
        (["no_such.py"], "script='no_such.py'"),
        (["--step=3", "SCRIPT"], "Did you mean --steps?"),
        (["--workers=two", "SCRIPT"], "--workers must be an integer"),
    ],
)
def test_wrong_command_lines(capsys, script, argv, said):
    assert main(["verify", *(script if word == "SCRIPT" else word for word in argv)]) == 2
    assert said in capsys.readouterr().err


def test_the_help_takes_no_time(capsys):
    assert main(["verify", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: tfdist verify [options] script.py [args]")
    assert all(f"--{name}" in said for name in ("workers", "accumulate", "steps", "float64", "json", "keep"))
    code = "from tfdist.cli.main import main; main(['verify', '-h']); import sys; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
