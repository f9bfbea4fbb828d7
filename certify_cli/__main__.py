"""``python -m certify_cli`` is the ``certify`` command."""

from certify_cli.main import main

if __name__ == "__main__":
    main()
