"""How TFRecord files are read, as checked values that another process can be told."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from tfdist.data.sharding import RULES, ShardOptions

SHUFFLES = (False, "local", "global")
ON_CORRUPT = ("raise", "skip")


@dataclass(frozen=True)
class ReadOptions:
    """See `read_tfrecords`; here every option has its final form.

    Attributes:
        patterns: Paths or glob patterns.
        weights: Of each pattern, if several sources are mixed; else empty.
        features: As `features_to_json` writes them; None is those of the index.
        batch_size, label, seed, shard, sharding, drop_remainder, compression, cache, on_corrupt, max_skipped: As in
            `read_tfrecords`.
        shuffle: False, "local" or "global".
        shuffle_buffer: Records of a window of a local shuffle; None is what fits.
        group_by_length: Batches of a window that is sorted by length; 0 is none.
    """

    patterns: tuple[str, ...]
    batch_size: int
    weights: tuple[float, ...] = ()
    features: dict[str, Any] | None = None
    label: str | None = None
    shuffle: Any = False
    seed: int = 0
    shuffle_buffer: int | None = None
    shard: ShardOptions = dataclasses.field(default_factory=ShardOptions)
    sharding: str = "auto"
    drop_remainder: bool = False
    group_by_length: int = 0
    compression: str | None = None
    cache: str | None = None
    on_corrupt: str = "raise"
    max_skipped: int = 0

    def __post_init__(self) -> None:
        self._check_integers()
        self._check_choices()
        if self.batch_size < self.shard.num_shards:
            raise ValueError(
                f"batch_size counts the rows of all workers together, so it must be at least their "
                f"number, {self.shard.num_shards}. Received: batch_size={self.batch_size}. "
                "Use a larger batch or fewer workers."
            )
        if self.weights and (
            min(self.weights) <= 0 or self.shuffle == "local" or self.sharding in ("files", "records")
        ):
            raise ValueError(
                "Mixed sources need weights above 0, and every worker reads from all of them: shuffle must be False or "
                f"'global' and sharding 'auto' or 'batches'. Received: weights={self.weights}, "
                f"shuffle={self.shuffle!r}, sharding={self.sharding!r}. Change these."
            )

    def _check_integers(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("seed", None),
            ("shuffle_buffer", 1),
            ("group_by_length", 0),
            ("max_skipped", 0),
        ):
            value = getattr(self, name)
            if value is None and name == "shuffle_buffer":
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                what = " It counts the rows of a global batch, of all workers together." if name == "batch_size" else ""
                raise TypeError(f"{name} must be an integer. Received: {name}={value!r}.{what} Give a whole number.")
            if least is not None and value < least:
                raise ValueError(f"{name} must be at least {least}. Received: {name}={value}. Use a larger one.")

    def _check_choices(self) -> None:
        for name, choices in (("shuffle", SHUFFLES), ("sharding", RULES), ("on_corrupt", ON_CORRUPT)):
            value = getattr(self, name)
            if value not in choices or (isinstance(value, int) and value is not False):
                raise ValueError(f"{name} must be one of {choices}. Received: {name}={value!r}. Choose one of them.")
        if self.shuffle == "global" and self.sharding in ("files", "records"):
            raise ValueError(
                "A global shuffle deals records out anew each epoch, so sharding must be 'auto' or 'batches'. "
                f"Received: sharding={self.sharding!r}. Leave it out, or use shuffle='local'."
            )

    def to_json(self) -> str:
        """Everything, as `from_json` takes it."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ReadOptions:
        """The options that another process wrote."""
        fields = json.loads(text)
        fields.update(
            patterns=tuple(fields["patterns"]), weights=tuple(fields["weights"]), shard=ShardOptions(**fields["shard"])
        )
        return cls(**fields)
