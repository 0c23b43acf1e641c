"""The command line: ``lognorm VERB …``, or ``python -m lognorm_jax VERB …``.

Exit codes: 0; 1 for a finding about an initialisation; 2 for what could not be run.
"""

import sys
from collections.abc import Sequence

_MISSING = 'The command line needs tyro: pip install "lognorm_jax[cli]"'


def main(args: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    try:
        import tyro
    except ImportError:
        print(_MISSING, file=sys.stderr)
        return 2
    from lognorm_jax.tool import _commands

    given = sys.argv[1:] if args is None else list(args)
    if given == ["--version"]:
        version = sys.modules["lognorm_jax"].__version__
        print(f"lognorm_jax {version}")
        return 0
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            _commands.VERBS,
            prog="lognorm",
            description="How stable are gradients in a deep network, given its shape?",
            args=given or ["--help"],
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
