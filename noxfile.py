"""What a developer runs. `nox -l` lists it; `nox` alone is lint, types and tests."""

import nox

nox.options.default_venv_backend = "none"  # one environment of 6 GB is enough; make it as README says
nox.options.sessions = ["lint", "types", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    session.run("ruff", "check", ".", external=True)
    session.run("ruff", "format", "--check", ".", external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy, strict for the rooms without torch."""
    session.run("mypy", external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after -- go to pytest."""
    session.run("python", "-m", "pytest", *session.posargs, external=True)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Run the benchmarks and fail where a ratio fell below benchmarks/baseline.json; -- --quick takes 12 minutes."""
    session.run("python", "-m", "benchmarks", *session.posargs, external=True)
