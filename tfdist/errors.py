"""Errors a tfdist user can meet."""


class TfdistError(Exception):
    """Base of all errors that tfdist itself defines."""


class ClusterError(TfdistError, ValueError):
    """A cluster description is wrong; the message names the field, the value and the fix."""


class ConfigError(TfdistError, ValueError):
    """A configuration file or override is wrong; the message names the key and the fix."""


class WorkersDisagreeError(TfdistError, RuntimeError):
    """Workers of one job run different code, data or weights."""


class TaskLostError(TfdistError, RuntimeError):
    """A task that the job can't go on without has ended; the message names it."""


class LaunchError(TfdistError, ValueError):
    """A job can't be launched as asked; the message names the option, the value and the fix."""


class DataError(TfdistError, ValueError):
    """Input files are not what they should be; the message names the file and the fix."""


class CheckpointError(TfdistError, RuntimeError):
    """A checkpoint can't be written, or doesn't belong to what is trained; the message names the folder and the fix."""


class CorruptRecordError(DataError):
    """A record can't be read; the message names the file, the record and its first byte."""

    def __init__(self, path: str, record: int, offset: int, what: str, remedy: str = "") -> None:
        self.path, self.record, self.offset, self.what, self.remedy = path, record, offset, what, remedy
        super().__init__(f"{path}: record {record} at byte {offset}: {what}.{' ' if remedy else ''}{remedy}")

    def __reduce__(self) -> tuple[type, tuple[str, int, int, str, str]]:
        return type(self), (self.path, self.record, self.offset, self.what, self.remedy)
