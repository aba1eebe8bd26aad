"""The errors that a user's media or settings can cause. In: nothing. Out: exception classes, all `ValueError`."""


class MediaError(ValueError):
    """One medium cannot be used; the message says which value, why, and what to do. A job turns it into a reject."""


class DecodeError(MediaError):
    """The bytes are not what their type promises: truncated, empty, mislabelled or damaged."""


class TooLargeError(MediaError):
    """The medium is beyond a stated limit of pixels, samples or bytes."""


class SpaceError(ValueError):
    """A space cannot be found, read, or used for what was asked."""


class NotHereError(SpaceError):
    """A space whose files would have to be fetched first."""
