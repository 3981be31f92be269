"""`make yocto-check`: every check of the layer that needs no build, then the negative control of each.

Exit status 0: all hold, and every fault that was tried is found.
"""

import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True

import controls  # noqa: E402
import elements  # noqa: E402
import recipes  # noqa: E402
import tools  # noqa: E402
import trees  # noqa: E402
import units  # noqa: E402
from parse import Layer, Parsed, profiles  # noqa: E402


def main() -> int:
    """Runs all and prints one line for each."""
    missing = units.missing_tools()
    if missing:
        print(f"error: not installed: {', '.join(missing)}; run `make yocto-check`, which installs them", file=sys.stderr)
        return 1
    root = Path(__file__).resolve().parent.parent.parent
    layer, began = Layer(root), time.monotonic()
    parsed = Parsed(layer)
    checks = {check.__name__: check for check in recipes.CHECKS + elements.CHECKS + units.CHECKS + tools.CHECKS + trees.CHECKS}
    failed = 0
    for name, check in checks.items():
        problems = check(layer, parsed)
        failed += bool(problems)
        print(f"{'FAIL' if problems else 'ok  '} {name}: {(check.__doc__ or '').splitlines()[0]}", flush=True)
        for problem in problems:
            print(f"       {problem}", flush=True)
    if failed:
        print(f"error: {failed} of {len(checks)} checks fail; their negative controls were not run", file=sys.stderr)
        return 1
    problems = controls.run(root, checks)
    print(f"{'FAIL' if problems else 'ok  '} negative controls: each of {len(controls.CONTROLS)} faults is found by its check", flush=True)
    for problem in problems:
        print(f"       {problem}", flush=True)
    print(f"{len(checks)} checks, {len(profiles())} machines and series, {time.monotonic() - began:.0f} s")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
