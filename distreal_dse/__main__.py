"""``python -m distreal_dse``: the command, where its script is not on the path."""

from distreal_dse.cli import main

if __name__ == "__main__":
    main()
