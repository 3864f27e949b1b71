"""`python -m bdauto` and the `bdauto` command."""

from bdauto.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
