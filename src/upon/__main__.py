"""`python -m upon`: the CLI."""

from upon.cli.main import main

main()
