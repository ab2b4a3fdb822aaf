"""The errors that dynops raises.

A message reads `<name> has <what came>: <rule>[. <way out>]`, so that it can be acted on without the source.
"""


class DynopsError(Exception):
    """Base of every error that dynops raises about its input."""


class ShapeError(DynopsError, ValueError):
    """Tensors whose axes do not fit together, or widths that do not divide."""


class SpecError(DynopsError, ValueError):
    """A spec or an argument with an illegal value."""


class DataError(DynopsError):
    """A data set that is missing, incomplete or corrupt."""


class RecordError(DynopsError, ValueError):
    """A record that does not say what a record must say."""


class StudyError(DynopsError):
    """A study that cannot run as asked, or a folder that holds something else."""
