"""`python -m unitcell` is the `unitcell` command."""

from unitcell.cli import main

if __name__ == "__main__":
    main()
