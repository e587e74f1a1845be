"""Public data files, pinned: `sources.json` says where each comes from and what its bytes hash to.

They are kept below `$ATTENTION_VARIANTS_DATA`, or in the user's cache folder where that is not set.
"""

import hashlib
import json
import os
import pathlib

import pooch

from attention_variants.errors import InputError

SOURCES = json.loads(pathlib.Path(__file__).with_name("sources.json").read_text())


def folder() -> pathlib.Path:
    """Where data files are kept."""
    return pathlib.Path(os.environ.get("ATTENTION_VARIANTS_DATA") or pooch.os_cache("attention-variants")).expanduser()


def url(name: str) -> str:
    """Where the file `name` of `sources.json` is downloaded from."""
    source = SOURCES[name]
    return f"https://raw.githubusercontent.com/{source['repository']}/{source['commit']}/{source['path']}"


def fetch(name: str) -> pathlib.Path:
    """The path of the file `name` (a key of `sources.json`), downloaded if it is not there yet.

    Raises:
      InputError: it is not there and cannot be downloaded, or its bytes are not the pinned ones.
    """
    path, pinned = folder() / name, SOURCES[name]["sha256"]
    if not path.exists():
        try:
            pooch.retrieve(url(name), known_hash=f"sha256:{pinned}", fname=path.name, path=path.parent)
        except ValueError as error:  # what came has another hash
            raise InputError(f"{url(name)} is not what it was: {str(error).splitlines()[0]}") from None
        except Exception as error:  # whatever the network, the proxy or the disk answered
            raise InputError(
                f"cannot download {name} ({type(error).__name__}); fetch {url(name)} elsewhere and put it at {path}, "
                "or let ATTENTION_VARIANTS_DATA name a folder that holds it"
            ) from None
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != pinned:
        raise InputError(
            f"{path} has the sha256 {found}; expected {pinned}; delete it, and it is downloaded again from {url(name)}"
        )
    return path
