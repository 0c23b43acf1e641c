"""Pass on what comes in; but of the death of another process one line, not what C++
says of it.

A program of its own, as JAX ends the others where they are: see ``_cluster``.
"""

import re
import sys

LOST = "Stopped: another process of the cluster has ended"
GOES_ON = "The same command, in all processes, goes on from the finished blocks."
SIGN = re.compile(
    rf"^({LOST}|[EF]\d{{4}} .*(coordination_service|distributed service))".encode()
)


def main() -> None:
    """Read standard input to its end, and write it, or the line, to standard error."""
    told = False
    for line in sys.stdin.buffer:
        if SIGN.search(line) and not told:
            told = True
            line = (
                line
                if line.startswith(LOST.encode())
                else f"{LOST}. {GOES_ON}\n".encode()
            )
            sys.stderr.buffer.write(b"\n" + line)
        elif not told:
            sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()


if __name__ == "__main__":
    main()
