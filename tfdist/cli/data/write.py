"""Writes records from elsewhere as TFRecord files, with an index.

    tfdist data write --from=keras:mnist --to='mnist/train-*.tfrecord' --num_shards=4
    tfdist data write --from=keras:mnist --split=test --to='mnist/test-*.tfrecord' --num_shards=1
    tfdist data write --from=houses.csv --to=data/houses --num_shards=2 --compression=GZIP

It reads a .csv or .tsv file with a header (columns become int64, float32 or strings), an .npz file (one array a
feature, the records in dimension 0), or a data set of keras.datasets. In the name, * becomes 00000-of-00004. The files
appear when all of them are complete. Then the same pattern reads them:

    train = tfdist.data.read_tfrecords("mnist/train-*.tfrecord", batch_size=64, label="label", shuffle=True)
"""

from __future__ import annotations

from absl import flags

from tfdist.cli.data.patterns import required
from tfdist.cli.flags import UsageError, parse

USAGE = "tfdist data write --from=SOURCE --to=PATTERN --num_shards=N [options]"


def define_flags() -> flags.FlagValues:
    """Returns the options of this command."""
    v = flags.FlagValues()
    flags.DEFINE_string("from", None, "What to read: FILE.csv, FILE.tsv, FILE.npz or keras:NAME.", flag_values=v)
    flags.DEFINE_string("to", None, "Pattern of the files to write.", flag_values=v)
    flags.DEFINE_integer("num_shards", None, "How many files; a multiple of the number of workers.", flag_values=v)
    flags.DEFINE_string("split", "train", "train or test, of a data set of Keras.", flag_values=v)
    flags.DEFINE_string("compression", None, "GZIP or ZLIB; by default none.", flag_values=v)
    flags.DEFINE_boolean("overwrite", False, "Replace files that are there.", flag_values=v)
    return v


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    values = define_flags()
    rest = parse(values, "data write", argv, options_anywhere=True)
    if rest:
        raise UsageError(f"tfdist data write takes options only. Received: {rest[0]!r}.")
    source = required(values, "from", "data.csv")
    to = required(values, "to", "'data/train-*.tfrecord'")
    num_shards = int(required(values, "num_shards", "4"))
    # Loads TensorFlow, which the help does without.
    from tfdist.data import write_tfrecords

    index = write_tfrecords(
        source,
        to,
        num_shards=num_shards,
        split=values.split,
        compression=values.compression,
        overwrite=values.overwrite,
    )
    print(f"{index.num_records:,} records in {len(index.shards)} files of {', '.join(index.features or {})}")
    return 0
