"""The same records in another number of files."""

from __future__ import annotations

from collections.abc import Sequence

from tfdist.data.features import features_to_json
from tfdist.data.files.data_files import DataFiles, common_pattern
from tfdist.data.files.index import DatasetIndex, index_path, make_index, scan_shards
from tfdist.data.writing.writer import TFRecordWriter
from tfdist.errors import DataError


def reshard(
    patterns: Sequence[str],
    to: str,
    *,
    num_shards: int,
    compression: str | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> DatasetIndex:
    """Copies the records of files into other files, as they are and in the same order.

    Args:
        patterns: Of the files to read.
        to: Pattern of the files to write; it may be the same, with `overwrite`.
        num_shards: How many files to write.
        compression: "", "GZIP" or "ZLIB"; None is as it was.
        overwrite: Whether to replace files of the pattern `to`.
        progress: Whether to show a bar; None is if stderr is a terminal.

    Returns:
        The index of the new files.

    Raises:
        DataError: If a file is missing or a record can't be read. Nothing is written then.
    """
    files = DataFiles.find(patterns)
    if files.missing:
        raise DataError(
            f"All files of a data set must be there. Received: {len(files.paths)} files, {len(files.missing)} missing, "
            f"the first is {files.missing[0]}. Restore them, or give a pattern that names only the files to copy."
        )
    found = scan_shards(files.paths, files.compression, checksum=False)
    with TFRecordWriter(
        to,
        files.features,
        num_shards=num_shards,
        compression=files.compression if compression is None else compression,
        num_records=sum(shard.num_records for shard in found),
        overwrite=overwrite,
        progress=progress,
    ) as writer:
        for record in files.all_records():
            writer.write_serialized(record)
    return writer.index


def write_index(patterns: Sequence[str], *, progress: bool = False) -> tuple[str, DatasetIndex]:
    """Writes the index of files that are there; what an index said of their features is kept.

    Args:
        patterns: Of the files, of one data set.
        progress: Whether to show a bar.

    Returns:
        Where it is, and the index.

    Raises:
        CorruptRecordError: If a file can't be read to its end.
    """
    path = index_path(common_pattern(patterns))
    files = DataFiles.find(patterns)
    features = None if files.features is None else features_to_json(files.features)
    index = make_index(files.paths, compression=files.compression, features=features, progress=progress)
    index.save(path)
    return path, index
