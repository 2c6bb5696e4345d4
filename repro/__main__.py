"""`python -m repro` is the command `repro`."""

from .cli import main

if __name__ == "__main__":
    main()
