"""The `anydim` command as a module.

Run: python -m anydim --help
"""

from anydim.cli.main import main

main()
