"""Copies the records of TFRecord files into another number of files, as they are and in the same order.

    tfdist data reshard 'data/train-*.tfrecord' --to='data/even-*.tfrecord' --num_shards=16
    tfdist data reshard 'data/train-*.tfrecord' --to='data/train-*.tfrecord' --num_shards=16 --overwrite

Features and compression stay, unless --compression names another: NONE, GZIP or ZLIB.
"""

from __future__ import annotations

from absl import flags

from tfdist.cli.data.patterns import parse_patterns, required

USAGE = "tfdist data reshard PATTERN ... --to=PATTERN --num_shards=N [options]"


def define_flags() -> flags.FlagValues:
    """Returns the options of this command."""
    v = flags.FlagValues()
    flags.DEFINE_string("to", None, "Pattern of the files to write.", flag_values=v)
    flags.DEFINE_integer("num_shards", None, "How many files to write.", flag_values=v)
    flags.DEFINE_string("compression", None, "NONE, GZIP or ZLIB; by default as it was.", flag_values=v)
    flags.DEFINE_boolean("overwrite", False, "Replace files that are there.", flag_values=v)
    return v


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    values = define_flags()
    patterns = parse_patterns(values, "reshard", argv)
    to = required(values, "to", "'data/even-*.tfrecord'")
    num_shards = int(required(values, "num_shards", "16"))
    compression = "" if values.compression == "NONE" else values.compression
    from tfdist.data.writing.resharding import reshard

    index = reshard(patterns, to, num_shards=num_shards, compression=compression, overwrite=values.overwrite)
    print(f"{index.num_records:,} records in {len(index.shards)} files")
    return 0
