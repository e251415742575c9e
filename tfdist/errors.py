"""Errors a tfdist user can meet."""


class TfdistError(Exception):
    """Base of all errors that tfdist itself defines."""


class ClusterError(TfdistError, ValueError):
    """A cluster description is wrong; the message names the field, the value and the fix."""


class ConfigError(TfdistError, ValueError):
    """A configuration file or override is wrong; the message names the key and the fix."""


class WorkersDisagreeError(TfdistError, RuntimeError):
    """Workers of one job run different code, data or weights."""


class LaunchError(TfdistError, ValueError):
    """A job can't be launched as asked; the message names the option, the value and the fix."""
