from __future__ import annotations

import io

import pytest

from tfdist.launch.output.console import Console
from tfdist.launch.output.lines import Line, LineCutter
from tfdist.launch.output.noise import is_noise
from tfdist.launch.output.tracebacks import TracebackHold

pytestmark = pytest.mark.unit

# What Keras 3.15 sends to a pipe, shortened.
KERAS_BAR = "Epoch 1/2\n\r\x1b[1m1/4\x1b[0m loss: 1.0" + "\b" * 13 + "\r\x1b[1m4/4\x1b[0m loss: 0.5  \n"


def cut(data: bytes, size: int) -> list[Line]:
    cutter = LineCutter()
    lines = [line for i in range(0, len(data), size) for line in cutter.feed(data[i : i + size])]
    return lines + cutter.finish()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10000])
def test_lines_do_not_depend_on_how_the_bytes_arrive(size):
    lines = cut((KERAS_BAR + "é\r\n\nlast").encode(), size)
    complete = [line.text for line in lines if line.is_complete]
    assert complete == ["Epoch 1/2", "\x1b[1m4/4\x1b[0m loss: 0.5", "é", "", "last"]


def test_a_bar_is_given_while_it_moves():
    cutter = LineCutter()
    assert cutter.feed(b"\r1/9") == [Line("1/9", is_complete=False)]
    assert cutter.feed(b"\b\b\b\r2/9") == [Line("2/9", is_complete=False)]
    assert cutter.feed(b"\r3/") == [Line("3/", is_complete=False)]
    assert cutter.feed(b"9\nx") == [Line("3/9")]
    assert cutter.finish() == [Line("x")]


def test_a_bar_does_not_pile_up():
    cutter = LineCutter()
    for step in range(1000):
        cutter.feed(b"\r" + f"{step}/1000".encode())
    assert len(cutter._unfinished) < 100


def test_bytes_that_are_no_text_are_shown_and_not_fatal():
    assert cut(b"a\xff\n", 1) == [Line("a\ufffd")]


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1795202538.088350    3128 port.cc:153] oneDNN custom operations are on. You may see",
        "E0000 00:00:1795202545.029124    3128 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error",
        "2026-01-01 10:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary",
        "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate",
    ],
)
def test_noise(line):
    assert is_noise(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "I0131 12:00:00.123456 140000 train.py:3] step 3",
        "W0131 12:00:00.123456 140000 train.py:3] loss is high",
        "E0000 00:00:1795203700.945915    7831 ring_alg.cc:291] Aborting RingReduce with UNAVAILABLE",
        "WARNING: my own",
    ],
)
def test_what_is_not_noise(line):
    assert not is_noise(line)


def test_a_traceback_is_held_with_what_follows_it_and_released_when_stale():
    hold = TracebackHold()
    assert not hold.take("before", 0.0)
    assert hold.take("Traceback (most recent call last):", 1.0)
    assert hold.take("ValueError: x", 1.1)
    assert hold.began_at == 1.0
    assert not hold.is_stale(2.0)
    assert hold.is_stale(100.0)
    assert hold.release() == ["Traceback (most recent call last):", "ValueError: x"]
    assert hold.began_at is None
    assert not hold.take("after", 101.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_prefixes_are_aligned_and_colours_are_for_terminals_only():
    out, err = io.StringIO(), io.StringIO()
    console = Console(out, err, ["ps/0", "worker/0"])
    console.line("ps/0", "\x1b[1mbold\x1b[0m")
    console.line("worker/0", "bad", is_error=True)
    assert out.getvalue() == "[ps/0]     bold\n"
    assert err.getvalue() == "[worker/0] bad\n"


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    Console(out, out, ["worker/0"]).line("worker/0", "x")
    assert out.getvalue() == "[worker/0] x\n"


def screen(text: str) -> list[str]:
    """What a terminal shows of `text`: the line eraser and nothing else is understood."""
    return [line.rsplit("\r\x1b[K", 1)[-1] for line in text.split("\n")]


def test_the_chiefs_bar_stays_below_the_lines_of_others(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()
    console = Console(out, out, ["worker/0", "worker/1"], live="worker/0")
    console.bar("worker/0", "1/9")
    console.bar("worker/1", "never shown")
    console.line("worker/1", "hello")
    assert screen(out.getvalue()) == ["[worker/1] hello", "[worker/0] 1/9"]
    console.bar("worker/0", "2/9 " + "=" * 100)
    assert screen(out.getvalue())[1] == ("[worker/0] 2/9 " + "=" * 100)[:39]
    console.line("worker/0", "9/9")
    console.line("worker/1", "bye")
    assert screen(out.getvalue()) == ["[worker/1] hello", "[worker/0] 9/9", "[worker/1] bye", ""]
