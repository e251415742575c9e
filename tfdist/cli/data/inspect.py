"""Shows what TFRecord files hold: files, records, bytes, features, and the first records in readable form.

    tfdist data inspect 'data/train-*.tfrecord'
    tfdist data inspect --records=10 data/train-00000-of-00004.tfrecord

Files without an index may be anybody's: their features are assumed from their first records.
"""

from __future__ import annotations

from absl import flags

from tfdist.cli.data.patterns import parse_patterns, show, shows_progress

USAGE = "tfdist data inspect [options] PATTERN ..."


def define_flags() -> flags.FlagValues:
    """Returns the options of this command."""
    v = flags.FlagValues()
    flags.DEFINE_integer("records", 3, "How many records to show.", lower_bound=0, flag_values=v)
    return v


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    values = define_flags()
    patterns = parse_patterns(values, "inspect", argv)
    from tfdist.data.files.inspection import inspect

    show(inspect(patterns, num_records=values.records, progress=shows_progress()))
    return 0
