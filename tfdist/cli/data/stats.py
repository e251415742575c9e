"""Shows ranges, lengths and frequent values of each feature, and how even the files are.

tfdist data stats 'data/train-*.tfrecord'
"""

from __future__ import annotations

from absl import flags

from tfdist.cli.data.patterns import parse_patterns, show, shows_progress

USAGE = "tfdist data stats PATTERN ..."


def define_flags() -> flags.FlagValues:
    """Returns the options of this command."""
    return flags.FlagValues()


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    patterns = parse_patterns(define_flags(), "stats", argv)
    from tfdist.data.files.statistics import stats

    show(stats(patterns, progress=shows_progress()))
    return 0
