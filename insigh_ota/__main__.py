"""`python -m insigh_ota`: as `insigh-ota`, of the checkout that one is in."""

import sys

from insigh_ota.cli import main

if __name__ == "__main__":
    sys.exit(main())
