"""Fetching what a request names by its address: off unless the server's owner wants it, and never from inside.

A name is resolved once, every address it has must be a public one, and the connection goes to the very address that was
looked at, so that a name which changes its mind meanwhile gains nothing. Each redirection is looked at in the same way.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from metatransformer.core.errors import DataError
from metatransformer.serve.uploads import Uploads

PORTS = {"http": 80, "https": 443}
REDIRECTS = 3
CHUNK = 2**16


def fetch(url: str, uploads: Uploads, *, most: int, seconds: float) -> Path:
    """Returns the file that an address leads to, at most ``most`` bytes within ``seconds``.

    Raises:
        DataError: no public address, no answer, or a larger one.
    """
    until, asked = time.monotonic() + seconds, url
    for _ in range(REDIRECTS + 1):
        parts = _parts(url)
        address = public_address(str(parts.hostname), PORTS[parts.scheme])
        connection = _Connection(parts, address, max(0.1, until - time.monotonic()))
        watch = threading.Timer(max(0.1, until - time.monotonic()), connection.end)
        watch.start()
        try:
            connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else "") or "/")
            answer = connection.getresponse()
            if answer.status in (301, 302, 303, 307, 308) and (place := answer.headers.get("location")):
                url = urljoin(url, place)
                continue
            if answer.status != 200:
                raise DataError(asked, must="be there", found=f"the status {answer.status}")
            return _kept(answer, Path(parts.path).name or "file", uploads, most=most, where=asked)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(asked, must="answer in time", found=type(error).__name__) from error
        finally:
            watch.cancel()
            connection.close()
    raise DataError(asked, must=f"lead somewhere within {REDIRECTS} redirections", found="more")


def _kept(answer: Any, name: str, uploads: Uploads, *, most: int, where: str) -> Path:
    path, left = uploads.place(name), most
    with path.open("xb") as file:
        while chunk := answer.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise DataError(where, must=f"have at most {most:,} bytes", found="more")
            file.write(chunk)
    return path


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DataError(repr(url[:200]), must="be an address", found="none") from error
    fine = parts.scheme in PORTS and parts.hostname and not parts.username and port in (None, PORTS[parts.scheme])
    if not fine or any(letter <= " " or letter > "~" for letter in url):
        must = "be an address that begins with http:// or https://, on the usual port"
        raise DataError(repr(url[:200]), must=must, found="another one")
    return parts


def public_address(host: str, port: int) -> str:
    """Returns the address of a host, all of whose addresses are public.

    Raises:
        DataError: it has none, or one of this machine or of a network inside.
    """
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise DataError(host, must="be a host that is known", found="none of that name") from error
    if not found or not all(is_public(address) for address in found):
        raise DataError(host, must="be a public host", found="an address inside, which is never fetched from")
    return sorted(found, key=lambda address: ":" in address)[0]


def is_public(text: str) -> bool:
    """Returns whether an address is one of the open internet, also where IPv6 wraps another one."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address in ipaddress.ip_network("64:ff9b::/96"):  # NAT64
            return is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if wrapped is not None:
            return is_public(str(wrapped))
    return address.is_global and not address.is_multicast


class _Connection(http.client.HTTPConnection):
    """A connection to one address, under the name that was asked for."""

    def __init__(self, parts: SplitResult, address: str, seconds: float) -> None:
        super().__init__(str(parts.hostname), PORTS[parts.scheme], timeout=seconds)
        self._address, self._secure = address, parts.scheme == "https"

    def connect(self) -> None:
        """Opens it."""
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)

    def end(self) -> None:
        """Ends it from another thread, when the time is over."""
        if (sock := self.sock) is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it has ended by itself
