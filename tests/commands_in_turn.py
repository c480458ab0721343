"""Several commands of one interpreter, because Python takes seconds to start."""

import json
import subprocess
import sys

PROGRAM = """
import json, sys
from {module} import start
for command in json.loads(sys.argv[1]):
    sys.argv[1:] = command
    try:
        start()
    except SystemExit as end:
        print(f"\\nstatus {{int(end.code or 0)}}")
"""


def run_in_turn(module: str, commands: list[list[str]], **options: object) -> tuple[list[int], str]:
    """The exit statuses of a module's commands, and all that they print; options: of `subprocess.run`."""
    program = [sys.executable, "-c", PROGRAM.format(module=module), json.dumps(commands)]
    done = subprocess.run(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500, **options)
    assert done.returncode == 0, done.stdout
    return [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("status ")], done.stdout
