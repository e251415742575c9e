"""What TensorFlow prints at start-up in spite of TF_CPP_MIN_LOG_LEVEL.

Seen with TensorFlow 2.21: messages logged before its C++ logging is set up ignore the level, and a
machine without GPUs gets an error about cuInit. Lines of a user's own absl logging look alike
(`I0131 12:00:00.1 42 train.py:3]`) and stay: they have a real date and name a Python file.
"""

from __future__ import annotations

import re

_CPP_FILE = r"\S+\.(?:cc|h|cpp|cu):\d+\]"
_PATTERNS = (
    r"WARNING: All log messages before absl::InitializeLog\(\)",
    rf"[IW]0000 00:00:\d+\.\d+ +\d+ {_CPP_FILE}",
    rf"E0000 00:00:\d+\.\d+ +\d+ {_CPP_FILE} failed call to cuInit",
    rf"E0000 00:00:\d+\.\d+ +\d+ {_CPP_FILE} Unable to register cu\w+ factory",
    rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] \w\S*{_CPP_FILE}",
    r"To enable the following instructions: .* rebuild TensorFlow with the appropriate",
)
_NOISE = re.compile("|".join(f"(?:{pattern})" for pattern in _PATTERNS))


def is_noise(line: str) -> bool:
    """Whether `line` is start-up noise of TensorFlow that says nothing about the user's job."""
    return _NOISE.match(line) is not None
