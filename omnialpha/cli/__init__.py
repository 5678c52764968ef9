"""The commands of `python -m omnialpha`, a file each; `main` puts them together."""
