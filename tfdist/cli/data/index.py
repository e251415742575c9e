"""Writes the index of TFRecord files that have none, or whose index is out of date.

    tfdist data index 'data/train-*.tfrecord'

With an index, files are opened without looking through them, and shuffled across all of them; their checksums show
damage. What an index said of their features is kept.
"""

from __future__ import annotations

from absl import flags

from tfdist.cli.data.patterns import parse_patterns, shows_progress

USAGE = "tfdist data index PATTERN ..."


def define_flags() -> flags.FlagValues:
    """Returns the options of this command."""
    return flags.FlagValues()


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    patterns = parse_patterns(define_flags(), "index", argv)
    from tfdist.data.writing.resharding import write_index

    path, index = write_index(patterns, progress=shows_progress())
    print(f"{path}: {index.num_records:,} records in {len(index.shards)} files")
    return 0
