"""Whether TensorFlow and Keras start, which devices they see, and which backend Keras takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tfdist.cluster.checks.finding import Finding

_SECONDS = 120.0
_MARK = "tfdist-devices:"
_SCRIPT = f"""
import json, keras, tensorflow as tf
devices = [device.name.removeprefix("/physical_device:") for device in
           tf.config.list_physical_devices()]
print("{_MARK}" + json.dumps(devices))
"""


def check_tensorflow() -> Iterator[Finding]:
    """Gives the Keras backend, and the devices or what went wrong at import."""
    yield _backend()
    try:
        child = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        fix = "Run `python -c 'import tensorflow'` and see where it hangs."
        yield Finding("import", f"TensorFlow takes more than {_SECONDS:.0f} s", fix)
        return
    devices = _seen(child.stdout)
    yield _failed(child) if devices is None else _devices(devices)


def _environment() -> dict[str, str]:
    # TF_CONFIG is not for this child: it's no task of the job.
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
    env.pop("TF_CONFIG", None)
    return env


def _seen(stdout: str) -> list[str] | None:
    for line in stdout.splitlines():
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
    return None


def _failed(child: subprocess.CompletedProcess[str]) -> Finding:
    last = [line for line in child.stderr.splitlines() if line.strip()][-1:]
    why = last[0].strip() if last else f"exit code {child.returncode}"
    fix = "Repair the installation: pip install --force-reinstall 'tensorflow>=2.21,<2.22'"
    return Finding("import", f"TensorFlow or Keras can't be imported: {why}", fix)


def _devices(devices: list[str]) -> Finding:
    said = ", ".join(devices)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    has_driver = os.path.exists("/dev/nvidiactl")
    if has_driver and not hidden and not any(name.startswith("GPU") for name in devices):
        fix = "pip install 'tensorflow[and-cuda]' brings the CUDA libraries that it misses."
        return Finding("devices", f"{said}; there is an NVIDIA driver, but no GPU is seen", fix)
    return Finding("devices", said)


def _backend() -> Finding:
    backend, source = _configured_backend()
    if backend == "tensorflow":
        return Finding("keras backend", backend)
    said = f"{backend} (from {source}); strategies need tensorflow"
    return Finding("keras backend", said, "export KERAS_BACKEND=tensorflow")


def _configured_backend() -> tuple[str, str]:
    """Returns what Keras will take and where that's written, by the rules of keras.config."""
    if from_env := os.environ.get("KERAS_BACKEND"):
        return from_env, "KERAS_BACKEND"
    path = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    try:
        return json.loads(path.read_text())["backend"], str(path)
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow", "the default"
