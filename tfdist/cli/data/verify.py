"""Reads every byte of TFRecord files, and says of each fault in which file, record and byte it is.

    tfdist data verify 'data/train-*.tfrecord'

It looks for missing files, checks lengths and checksums of every record, compares files with their index, and parses
each record by the features that the index names. Exit code: 0 all is whole, 1 there are faults, 2 it could not look.
"""

from __future__ import annotations

from absl import flags

from tfdist.cli.data.patterns import parse_patterns, shows_progress

USAGE = "tfdist data verify PATTERN ..."


def define_flags() -> flags.FlagValues:
    """Returns the options of this command."""
    return flags.FlagValues()


def run(argv: list[str]) -> int:
    """Carries the command out; returns its exit code."""
    patterns = parse_patterns(define_flags(), "verify", argv)
    from tfdist.data.files.verification import verify

    verification, count = verify(patterns, progress=shows_progress()), 0
    for fault in verification.faults():
        print(fault, flush=True)
        count += 1
    whole = f"{verification.num_records:,} whole records in {len(verification.files.paths)} files"
    print(f"{count:,} faults; {whole}." if count else f"All is well: {whole}.")
    if not verification.features:
        print("No index says what a record holds, so records were not parsed.")
    return 1 if count else 0
