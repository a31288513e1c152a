"""`python -m skipvsr`."""

from skipvsr.cli.main import main

if __name__ == "__main__":
    main()
