"""What stock ESP32 firmware freezes and the Unix interpreter lacks: ``umqtt.simple``.

It is downloaded once from PyPI into :func:`places.cache`; pip itself refuses the package, which
has no ``setup.py``. ``python -m host_sim.node.stock`` does just this at set-up.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from host_sim.errors import SimError
from insigh_ota.places import cache

PROJECT, VERSION = "micropython-umqtt.simple", "1.3.4"
SHA256 = "b6a2520239e3992c63a7de9370ee9b3d9d27819a90359c521f1c0f7ccab8d12f"
MODULE = "umqtt/simple.py"


def ensure() -> Path:
    """The folder with ``umqtt/simple.py``, downloaded on first use."""
    folder = cache("node_stock")
    if not (folder / MODULE).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="node_stock-") as scratch:
            archive = Path(scratch) / "sdist.tar.gz"
            _download(archive)
            install(archive, folder)
    return folder


def _download(archive: Path) -> None:
    """Fetch the pinned sdist from PyPI."""
    # Imported late: only the first use needs it, and it takes longer than a boot of the node.
    import requests
    from pypi_simple import NoSuchProjectError, PyPISimple

    try:
        with PyPISimple() as index:
            for package in index.get_project_page(PROJECT, timeout=30).packages:
                if package.version == VERSION and package.package_type == "sdist":
                    index.download_package(package, archive, verify=False, timeout=30)
                    return
    except (OSError, requests.RequestException, NoSuchProjectError) as error:
        raise SimError(
            f"cannot download {PROJECT} {VERSION} from PyPI (needed once): {error}"
        ) from error
    raise SimError(f"PyPI has no sdist of {PROJECT} {VERSION}")


def install(archive: Path, folder: Path) -> None:
    """Take the module out of a verified `archive`; `folder` appears complete or not at all."""
    content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise SimError(f"{PROJECT} {VERSION} from PyPI has sha256 {digest}, expected {SHA256}")
    with tarfile.open(archive) as tar:
        name = next((n for n in tar.getnames() if n.endswith("/" + MODULE)), None)
        member = tar.extractfile(name) if name else None
        if member is None:
            raise SimError(f"{PROJECT} {VERSION} holds no {MODULE}")
        source = member.read()
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix="node_stock-"))
    try:
        (fresh / MODULE).parent.mkdir(parents=True)
        (fresh / MODULE).write_bytes(source)
        fresh.chmod(0o755)
        if folder.exists():  # incomplete: only a hand can have made it so
            shutil.rmtree(folder)
        fresh.rename(folder)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not (folder / MODULE).is_file():  # else another process was quicker
            raise


def main() -> int:
    """``python -m host_sim.node.stock``."""
    try:
        print(ensure())
    except SimError as error:
        print(f"host_sim: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
