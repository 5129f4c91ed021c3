"""What the README states as fact is compared with the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

from host_sim.node import run_code

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_configuration_table_is_the_code():
    code = """
import json
from ota.config import complete
ids = {"device_id": "d", "device_key": "k", "control_channel": "c"}
print(json.dumps(complete(ids)))
"""
    config = json.loads(run_code(code, path=[ROOT / "firmware"]).output)
    for key, value in config.pop("mqtt").items():
        config["mqtt." + key] = value
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", README, re.MULTILINE))
    assert set(rows) == set(config)
    for key, cell in rows.items():
        if cell != "none":
            assert json.loads(cell.strip("`")) == config[key], key


def test_the_two_commands_come_first():
    assert README.index("make demo") < README.index("make test") < README.index("## ")


def test_the_example_configuration_is_one(tmp_path: Path):
    (example,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    (tmp_path / "ota.json").write_text(example)
    code = f"import ota\nprint(ota.load_config({str(tmp_path / 'ota.json')!r})['server'])"
    assert run_code(code, path=[ROOT / "firmware"]).output.strip() == "console.insigh.io"


def test_the_ten_lines_update_a_node(make_site):
    """The README's own main.py, word for word, takes a package."""
    from host_sim import sample

    (main,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(main.splitlines()) <= 10
    site = make_site({"main.py": main.encode()})
    site.ask(sample.tar_gz({"main.py": sample.main_py(2)}))
    assert "version 2 runs" in site.run().output
    assert [r["e"] for r in site.reports()] == [1]
