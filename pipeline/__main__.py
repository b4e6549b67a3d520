"""`python -m pipeline`: the one door to everything the project does.

Any Python 3 may knock: the packages are in `.venv`, so it goes on with the Python there.
"""

import os
import sys
from importlib.util import find_spec

VENV = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), ".venv")
PYTHON = os.path.join(VENV, "bin", "python3.11")

if __name__ == "__main__":
    finished = os.path.exists(os.path.join(VENV, "bootstrap.stamp"))
    if finished and os.path.realpath(sys.prefix) != os.path.realpath(VENV):
        os.execv(PYTHON, [PYTHON, "-m", "pipeline", *sys.argv[1:]])
    if find_spec("typer") is None:
        sys.exit("The project's packages are not installed yet: type `make setup` first.")
    from pipeline.cli import app

    app()
