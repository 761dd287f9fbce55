"""`python -m igkd_hpo` is `igkd-hpo`; workers are started this way, so they need no script on the PATH."""

from igkd_hpo.cli.app import main

if __name__ == "__main__":
    main()
