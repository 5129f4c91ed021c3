# As in stock firmware: the old name of `requests`.
from requests import *  # noqa: F403
