"""What can go wrong, each with a place in a file or the words to type next."""

from __future__ import annotations

# Exit codes of the command line. pytest's own 5 stands for "nothing was collected".
OK, DIFFERENCE, USAGE, FAILED, NOTHING, INTERRUPTED = 0, 1, 2, 3, 5, 130


class ReproError(Exception):
    """A mistake of the user's, told in one line: file, line, what was expected, what to do."""

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        self.message, self.file, self.line = message, file, line
        place = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(place + message)


class JobError(Exception):
    """A job that came to nothing, with the reason that its record or report will show.

    With `final` the same job would fail again (a net that does not learn), and that is recorded as its outcome.
    """

    def __init__(self, reason: str, final: bool = False) -> None:
        self.reason, self.final = reason, final
        super().__init__(reason)

    def __reduce__(self) -> tuple[type[JobError], tuple[str, bool]]:
        return JobError, (self.reason, self.final)
