from __future__ import annotations

import pytest

from tfdist.cluster.progress import ProgressFile, TrainingStep, read_progress
from tfdist.launch.repeated_failures import own_exception
from tfdist.launch.task_process import Ending

pytestmark = pytest.mark.unit

HEADER = "Traceback (most recent call last):"
FRAME = '  File "train.py", line 3, in <module>'


def failure(*words: str, code: int = 1, step: TrainingStep | None = None):
    return own_exception(Ending(code, 1.0, 1.0, list(words)), step)


@pytest.mark.parametrize(
    "words, expected",
    [
        ([HEADER, FRAME, "ValueError: bad"], "ValueError: bad"),
        # the last of two: the first is the cause, or was no more than a message
        ([HEADER, FRAME, "KeyError: 1", "", "During handling ...", "", HEADER, FRAME, "OSError: x"], "OSError: x"),
        # a message of several lines, without what TensorFlow numbers or Python places
        (
            [HEADER, FRAME, "tf.errors.InvalidArgumentError: Graph execution error:", "", "  [Op:__inference_f_417]"],
            "tf.errors.InvalidArgumentError: Graph execution error:\n\n  [Op:__inference_f_...]",
        ),
        ([HEADER, FRAME, "ValueError: <A at 0x7f00aB>"], "ValueError: <A at ...>"),
        (
            ['  File "train.py", line 3', "    a b", "      ^", "SyntaxError: invalid syntax"],
            "SyntaxError: invalid syntax",
        ),
        # logs behind it have times in them
        (
            [HEADER, FRAME, "ValueError: bad", "W0131 12:00:00.1 42 x.cc:3] y", "2026-01-31 12:00: F x"],
            "ValueError: bad",
        ),
    ],
)
def test_what_a_failure_says(words, expected):
    assert failure(*words).words == expected
    assert failure(*words).words.startswith(str(failure(*words)).partition(" (")[0])


@pytest.mark.parametrize(
    "words, code",
    [
        ([HEADER, FRAME, "ValueError: bad"], -9),
        ([HEADER, FRAME, "tensorflow.errors.UnavailableError: gone"], 1),
        (["no traceback"], 1),
        ([HEADER, FRAME], 1),
        ([], 1),
    ],
)
def test_what_is_no_exception_of_its_own(words, code):
    assert failure(*words, code=code) is None


def test_failures_are_the_same_at_the_same_step_only():
    said = [HEADER, FRAME, "ValueError: bad"]
    steps = [None, TrainingStep(0, 3), TrainingStep(1, 3)]
    assert [[failure(*said, step=a) == failure(*said, step=b) for a in steps] for b in steps] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]


def test_a_step_is_written_over_the_one_before(tmp_path):
    path = tmp_path / "step"
    assert read_progress(path) is None
    file = ProgressFile(path)
    assert read_progress(path) is None  # nothing noted yet
    for step in (TrainingStep(10**9, 10**11), TrainingStep(1, 2)):
        file.write(step)
        assert read_progress(path) == step
    size = path.stat().st_size
    path.unlink()
    file.write(TrainingStep(1, 3))  # the launcher is gone: training goes on
    file.close()
    assert size == 26
