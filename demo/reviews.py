"""Remarks of customers, with what people made of them: fetched once, from a package on PyPI.

`vaderSentiment` 3.3.2 (MIT) carries 3,708 sentences of 309 Amazon reviews of five products (Hu & Liu 2004), each rated
by at least 20 people from -4 to 4 (Hutto & Gilbert, ICWSM 2014). Nine of the reviews have no sentence in the file.
"""

import io
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

PACKAGE = "vaderSentiment==3.3.2"
INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
FILE = "amazonReviewSnippets_GroundTruth.txt"


class Remark(NamedTuple):
    """A sentence of a review, and the mean of its ratings."""

    id: str
    rating: float
    text: str


def fetch(directory: Path) -> Path:
    """The file of ratings; downloaded if it isn't there yet."""
    path = directory / FILE
    if not path.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += ["--no-binary", ":all:", "--dest", str(directory), PACKAGE]
        subprocess.run(command, check=True)
        whole = path.with_suffix(".part")
        whole.write_bytes(_unpacked(next(directory.glob("vader*.tar.gz"))))
        whole.replace(path)
    return path


def _unpacked(sdist: Path) -> bytes:
    with tarfile.open(sdist) as outer, tarfile.open(fileobj=io.BytesIO(_read(outer, INNER))) as inner:
        return _read(inner, FILE)


def _read(archive: tarfile.TarFile, end: str) -> bytes:
    member = next(each for each in archive.getmembers() if each.name.endswith(end))
    file = archive.extractfile(member)
    assert file is not None, end
    return file.read()


def choose(path: Path) -> list[Remark]:
    """One remark of each review: its first of a handy length that people rated clearly, by one point at least."""
    reviews: dict[str, list[Remark]] = defaultdict(list)
    for line in path.read_text("ascii").splitlines():
        id, rating, text = line.split("\t")
        reviews[id.partition("_")[0]].append(Remark(id, float(rating), text.strip()))
    clear = (
        [each for each in review if abs(each.rating) >= 1 and 30 <= len(each.text) <= 160]
        for review in reviews.values()
    )
    return [remarks[0] for remarks in clear if remarks]
