"""Fetching public data files, accepted only when their checksum is the published one."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from certify.errors import DataNotFound, UntrustedFile


@dataclass(frozen=True)
class RemoteFile:
    """One public file: where it is offered, how large it is, and what it must hash to.

    ``digest`` is "sha256:HEX" or "md5:HEX" of the file; with ``unpacked``, of its gunzipped content
    (mirrors compress the same file differently). ``size`` bounds what is accepted in bytes.
    """

    urls: Sequence[str]
    digest: str
    size: int
    unpacked: bool = False


def fetch(remote: RemoteFile, target: Path, *, timeout: float = 60.0) -> Path:
    """Download to ``target``, trying each mirror in turn; nothing is kept that does not match.

    Raises UntrustedFile when a mirror answers with other content, DataNotFound when none answers.
    """
    failures = []
    for url in remote.urls:
        handle, part = _part(target)
        try:
            with os.fdopen(handle, "wb") as file:
                _copy(url, file, remote.size, timeout)
            found = _digest(Path(part), remote)
            if found != remote.digest:
                raise UntrustedFile(
                    f"{url} is not the published file",
                    why=f"its {'content' if remote.unpacked else 'file'} hashes to {found}, "
                    f"the published one to {remote.digest}",
                    remedy="download the file by hand from a source you trust and give --data-root",
                )
            os.replace(part, target)
            return target
        except (urllib.error.URLError, OSError, TimeoutError, EOFError, zlib.error) as error:
            failures.append(f"{url}: {error}")
        finally:
            Path(part).unlink(missing_ok=True)
    raise DataNotFound(
        f"{target.name} could not be downloaded",
        why="; ".join(failures),
        remedy="check the network, or copy the file into place by hand and give --data-root",
    )


def _part(target: Path) -> tuple[int, str]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise DataNotFound(
            f"{target.name} could not be downloaded",
            why=f"{target.parent} cannot be written ({error})",
            remedy="give a folder that you may write to with --data-root",
        ) from error


def _copy(url: str, file, size: int, timeout: float) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "certify-robustness"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        left = size
        while block := answer.read(2**16):
            left -= len(block)
            if left < 0:
                raise OSError(f"the answer is longer than {size} bytes")
            file.write(block)


def _digest(path: Path, remote: RemoteFile) -> str:
    algorithm = remote.digest.split(":")[0]
    sha = hashlib.new(algorithm, usedforsecurity=False)
    with (gzip.open if remote.unpacked else open)(path, "rb") as file:
        while block := file.read(2**20):
            sha.update(block)
    return f"{algorithm}:{sha.hexdigest()}"


def _mnist(name: str, content_sha256: str) -> RemoteFile:
    mirrors = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    return RemoteFile([m + name for m in mirrors], f"sha256:{content_sha256}", 2**24, unpacked=True)


def _fashion(name: str, md5: str) -> RemoteFile:
    mirrors = (
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    )
    return RemoteFile([m + name for m in mirrors], f"md5:{md5}", 2**26)


def _cifar(name: str, sha256: str) -> RemoteFile:
    return RemoteFile([f"https://www.cs.toronto.edu/~kriz/{name}"], f"sha256:{sha256}", 2**28)


#: Every file this package can fetch, by data set and file name.
FILES: dict[str, dict[str, RemoteFile]] = {
    "mnist": {
        name: _mnist(name, digest)
        for name, digest in {
            "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        }.items()
    },
    "cifar10": {
        "cifar-10-binary.tar.gz": _cifar(
            "cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
        )
    },
    "cifar100": {
        "cifar-100-binary.tar.gz": _cifar(
            "cifar-100-binary.tar.gz", "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
        )
    },
    "fashion-mnist": {
        name: _fashion(name, digest)
        for name, digest in {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        }.items()
    },
}
