"""`dgm data`: list, fetch and verify data sets.

A download goes to a hidden part file, is resumed where it stopped, and takes its place only when the sha256 of its
content is the known one; a damaged file is thrown away and fetched again.
"""

import argparse
import errno
import hashlib
import http.client
import os
import shutil
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from dgm_course import data, full_sets

ATTEMPTS = 3
TIMEOUT = 30  # seconds without an answer
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # what a disk says, not a network


class FetchError(RuntimeError):
    """A set could not be brought; the message says why and what to use instead."""


def receive(url: str, part: Path) -> None:
    """Download `url` into `part`, going on where an earlier download stopped, with a progress bar.

    Raises:
        OSError: no network, an error of the server, or a connection that ended early.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "dgm-course", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send; the checksum will tell whether it is right
            return
        raise
    with response:
        have = have if response.status == 206 else 0  # a server without ranges sends the whole file again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[-1], leave=False)
        with open(part, "ab" if have else "wb") as file, bar:
            while block := response.read(1 << 16):
                have += file.write(block)
                bar.update(len(block))
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def unpack(archive: Path, target: Path) -> None:
    """The wav files of a zip archive into the folder `target`, which appears only when complete."""
    fresh = target.with_name(f".part-{target.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if name.endswith(".wav"):
                (fresh / Path(name).name).write_bytes(file.read(name))
    if target.exists():
        shutil.rmtree(target)
    os.replace(fresh, target)
    archive.unlink()


def fetch_file(file: full_sets.File, folder: Path, url: str) -> None:
    """Bring one file into `folder`.

    Raises:
        FetchError: the server cannot be reached, or what it sends has the wrong checksum.
    """
    part = folder / f".part-{url.rsplit('/', 1)[-1]}"
    trouble = ""
    for _ in range(ATTEMPTS):
        try:
            receive(url, part)
        except urllib.error.HTTPError as error:
            raise FetchError(f"{url}: the server answered {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in NO_ROOM:
                raise
            trouble = f"cannot reach {url}: {getattr(error, 'reason', error)}"
            continue  # what has come stays in the part file
        if full_sets.is_intact(part, file.sha256):
            unpack(part, folder / file.name) if part.suffix == ".zip" else os.replace(part, folder / file.name)
            return
        part.unlink()
        trouble = f"{url}: truncated or altered (wrong sha256), refused"
        print(f"{trouble}; fetching it again", file=sys.stderr)
    raise FetchError(trouble)


def fetch(name: str, mirror: str | None = None) -> Path:
    """Bring the full set `name` into `full_sets.home()` and return its folder; intact files are kept.

    Args:
        name: a name of `full_sets.FULL`.
        mirror: address to take files from instead of the official ones, as MIRROR/FOLDER/FILE; the same checksums hold.

    Raises:
        FetchError: the message says what went wrong and which shipped data to use meanwhile.
    """
    card = full_sets.FULL[name]
    folder = full_sets.home() / card.folder
    try:
        for file in card.files:
            if full_sets.is_intact(folder / file.name, file.sha256):
                print(f"{folder / file.name}: already there, intact")
                continue
            folder.mkdir(parents=True, exist_ok=True)
            url = f"{mirror.rstrip('/')}/{card.folder}/{file.url.rsplit('/', 1)[-1]}" if mirror else file.url
            fetch_file(file, folder, url)
            print(f"{folder / file.name}: fetched, sha256 right")
    except (FetchError, OSError) as error:
        room = "\nMake room, or set DGM_DATA to a folder where you can write." if isinstance(error, OSError) else ""
        raise FetchError(
            f"{error}{room}\nThe full set {name} was not brought. Meanwhile use the data that ships with the course: "
            f"load({card.shipped!r})"
        ) from error
    return folder


def list_sets() -> None:
    """Print every set: what ships and what can be fetched."""
    print("Shipped with the course:")
    for name, card in data.index().items():
        print(f"  {name:17}{card['bytes'] / 1e6:6.1f} MB  {card['licence']:26}  {card['about']}")
    print(f"\nFull sets (dgm data fetch NAME), kept in {full_sets.home()}:")
    for name, card in full_sets.FULL.items():
        here = all((full_sets.home() / card.folder / file.name).exists() for file in card.files)
        size = sum(file.size for file in card.files)
        print(f"  {name:17}{size / 1e6:6.1f} MB  {'here' if here else 'not here':9} {card.licence:16}  {card.about}")


def verify() -> bool:
    """Check the sha256 of every shipped file and every full set that is here; print a line each."""
    right = True
    for name, card in data.index().items():
        good = hashlib.sha256((data.folder() / card["file"]).read_bytes()).hexdigest() == card["sha256"]
        print(f"{'right' if good else 'WRONG'}  {name} ({card['file']})")
        right &= good
    for name, card in full_sets.FULL.items():
        for file in card.files:
            path = full_sets.home() / card.folder / file.name
            if path.exists():
                good = full_sets.is_intact(path, file.sha256)
                print(f"{'right' if good else 'WRONG'}  {name} ({path})")
                right &= good
    return right


def main(argv: list[str] | None = None) -> int:
    """Run `dgm data ...`; returns 0, or 1 with a message on stderr when something is wrong."""
    parser = argparse.ArgumentParser(prog="dgm data", description="Data sets of the course.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what ships and what can be fetched")
    fetching = commands.add_parser("fetch", help="bring a full set from its official address")
    fetching.add_argument("names", nargs="+", metavar="NAME", choices=full_sets.FULL, help=", ".join(full_sets.FULL))
    fetching.add_argument("--mirror", metavar="URL", help="take the files from URL/FOLDER/FILE instead")
    showing = commands.add_parser("path", help="where data is: the folder of full sets, or of one of them")
    showing.add_argument("name", nargs="?", metavar="NAME", choices=full_sets.FULL)
    commands.add_parser("verify", help="check the checksums of all data that is here")
    args = parser.parse_args(argv)
    try:
        if args.command == "list":
            list_sets()
        elif args.command == "fetch":
            for name in args.names:
                fetch(name, args.mirror)
        elif args.command == "path":
            print(full_sets.folder(args.name) if args.name else full_sets.home())
        elif not verify():
            print("dgm data: a file is damaged; bring it again (dgm data fetch, or git checkout)", file=sys.stderr)
            return 1
    except (FetchError, FileNotFoundError) as error:
        print(f"dgm data: {error}", file=sys.stderr)
        return 1
    return 0
