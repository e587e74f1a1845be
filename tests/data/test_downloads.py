"""Files are pinned: the right bytes are taken from the folder, wrong ones are refused with both hashes and left where they are."""

import hashlib
import pathlib

import pooch
import pytest

from attention_variants.data import downloads, multi30k
from attention_variants.errors import InputError

NAME = "multi30k/val.de.gz"
RETRIEVE = pooch.retrieve  # before conftest.py puts a refusal in its place


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTENTION_VARIANTS_DATA", str(tmp_path))
    (tmp_path / "multi30k").mkdir()
    return tmp_path


@pytest.fixture
def pinned(monkeypatch):
    content = b"the right bytes"
    monkeypatch.setitem(downloads.SOURCES[NAME], "sha256", hashlib.sha256(content).hexdigest())
    return content


def test_a_filled_folder_needs_no_network(folder, pinned):
    (folder / NAME).write_bytes(pinned)
    assert downloads.fetch(NAME) == folder / NAME


def test_wrong_bytes_are_refused_with_both_hashes_and_left_there(folder, pinned):
    (folder / NAME).write_bytes(b"the wrong bytes")
    found, expected = (hashlib.sha256(x).hexdigest() for x in (b"the wrong bytes", pinned))
    with pytest.raises(InputError, match=rf"val\.de\.gz has the sha256 {found}; expected {expected}"):
        downloads.fetch(NAME)
    assert (folder / NAME).read_bytes() == b"the wrong bytes"


def test_without_network_and_cache_it_says_which_file_from_where_and_where_to_put_it(folder):
    with pytest.raises(InputError) as caught:
        downloads.fetch(NAME)
    for part in (f"cannot download {NAME}", downloads.url(NAME), f"put it at {folder / NAME}", "ATTENTION_VARIANTS_DATA"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("right", [True, False])
def test_a_downloaded_file_is_checked_by_its_hash(folder, pinned, monkeypatch, right):
    """pooch's own check: the pinned hash is what it is given; and what came is not trusted without it."""

    def download(url, output_file, *args, **kwargs):
        assert url == downloads.url(NAME)
        pathlib.Path(output_file).write_bytes(pinned if right else b"something else")

    monkeypatch.setattr(pooch, "retrieve", RETRIEVE)
    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *args, **kwargs: download)
    if right:
        assert downloads.fetch(NAME).read_bytes() == pinned
        monkeypatch.setattr(pooch, "retrieve", lambda *args, **kwargs: pytest.fail("downloaded again"))
        assert downloads.fetch(NAME).read_bytes() == pinned
    else:
        with pytest.raises(InputError, match=downloads.url(NAME)):
            downloads.fetch(NAME)
        assert not (folder / NAME).exists()


def test_every_source_is_pinned_to_a_commit():
    for name, source in downloads.SOURCES.items():
        assert len(source["sha256"]) == 64
        assert len(source["commit"]) == 40
        assert (
            downloads.url(name) == f"https://raw.githubusercontent.com/{source['repository']}/{source['commit']}/{source['path']}"
        )


def test_every_file_of_multi30k_that_exists_upstream_is_pinned():
    """German, English and French for all splits but those without a French side upstream."""
    for split, file in multi30k.FILES.items():
        for language in ("de", "en"):
            assert f"multi30k/{file}.{language}.gz" in downloads.SOURCES, split


def test_the_same_language_twice_is_refused():
    with pytest.raises(InputError, match="both 'de'"):
        multi30k.Config("de", "de")
