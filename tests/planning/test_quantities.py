from __future__ import annotations

import pytest

from tfdist.planning.quantities import QuantityError, bytes_of, in_bytes, in_seconds, number, rate, seconds

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "read, text, value",
    [
        (number, "1.2e9", 1.2e9),
        (number, "1.2G", 1.2e9),
        (number, "70k", 70e3),
        (number, ".5", 0.5),
        (bytes_of, "80GB", 80e9),
        (bytes_of, "16 GiB", 16 * 2**30),
        (bytes_of, "12", 12),
        (rate, "100Gbit", 12.5e9),
        (rate, "100 Gbit/s", 12.5e9),
        (rate, "100Gbps", 12.5e9),
        (rate, "100Gb", 12.5e9),
        (rate, "300GB", 300e9),
        (rate, "300GB/s", 300e9),
        (seconds, "20us", 20e-6),
        (seconds, "1.5ms", 1.5e-3),
        (seconds, "2", 2),
        (seconds, "1000h", 3.6e6),
    ],
)
def test_what_is_understood(read, text, value):
    assert read(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "read, text",
    [
        *((number, text) for text in ("many", "0", "-1", "1e999", "", "1.2GB")),
        *((rate, text) for text in ("5", "100Gbyte", "1G")),
        *((bytes_of, "8Gbit"), (seconds, "5 years"), (seconds, "nan")),
    ],
)
def test_what_is_not(read, text):
    with pytest.raises(QuantityError, match=f"^Expected: .* above 0. Received: '{text}'"):
        read(text)


@pytest.mark.parametrize(
    "write, value, text",
    [
        (in_seconds, 1.75, "1.75 s"),
        (in_seconds, 0.0123, "12.3 ms"),
        (in_seconds, 2e-6, "2 us"),
        (in_seconds, 0, "0 us"),
        (in_bytes, 0, "0 B"),
        (in_bytes, 9.45e9, "9.45 GB"),
        (in_bytes, 999, "999 B"),
    ],
)
def test_what_is_written(write, value, text):
    assert write(value) == text
