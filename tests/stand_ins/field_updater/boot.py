# The field firmware's boot.py, as far as it touches an updater: it sets sys.path its own way.

import sys

sys.path.clear()
sys.path.append("/lib")
sys.path.append(".frozen")
sys.path.append("")
print("[boot] the field's boot.py runs")
