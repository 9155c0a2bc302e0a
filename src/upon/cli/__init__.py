"""The command line: one file per noun. `main.py` puts them together and turns errors into messages."""
