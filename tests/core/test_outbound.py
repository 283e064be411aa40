"""The guard against forged requests, with real connections and with name servers that lie."""

import asyncio
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from apps.core.addresses import AllowList
from apps.core.outbound import LOOK, SHOWN, AddressRefused, Outbound, OutboundFailed
from tests.receiver import HOST, Receiver, closed_port, never_ends, says, sends, waits

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
PUBLIC = "93.184.216.34"


class Names:
    """A name server with a script: each look-up gets the next answer, the last repeats."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def guard(*allow: str, resolve: Resolve | None = None, timeout: float = 5.0) -> Outbound:
    return Outbound(AllowList.parse(allow), resolve=resolve or Names([PUBLIC]), timeout=timeout)


@pytest.mark.parametrize(
    "url",
    ["", "x", "//hooks.example", "ftp://hooks.example/", "file:///etc/passwd", "gopher://hooks.example", "javascript:x",
     "http://", "http:///path", "http://user@hooks.example/", "http://user:pass@hooks.example/", "http://:p@hooks.example",
     "http://hooks.example:0/", "http://hooks.example:99999/", "http://hooks.example:x/", "http://hooks.example:22/",
     "http://hooks.example:6379/", "http://hooks.example /", "http://hooks.example\\@127.0.0.1/", "http://a\r\nb/",
     "http://hooks.example/\x00", "http://hooks.example/\ud800",
     "http://hooks..example/", "http://[::1", "http://a%2eb/", "http://a,b/",
     "http://hooks.example/" + "x" * 2048, "http://hooks.example/" + "é" * 1000],
)  # fmt: skip
def test_a_form_that_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        guard().parse(url)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.1.1", "0.0.0.0", "[::1]", "[::]", "[::ffff:169.254.169.254]",
     "[fe80::1%25eth0]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[fd00:ec2::254]", "224.0.0.1",
     "localhost", "LOCALHOST.", "a.localhost", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001",
     "127.1", "127.0.1", "①②⑦.⓪.⓪.①", "１２７.0.0.1", "127。0。0。1", "0", "127.0.0.1."],
)  # fmt: skip
def test_an_address_inside_is_refused_however_it_is_spelled(host: str) -> None:
    with pytest.raises(AddressRefused):
        guard().parse(f"http://{host}/hook")


@pytest.mark.parametrize(
    "url",
    ["https://hooks.example/a?b=c", "http://93.184.216.34:8080/", "https://bücher.example/ü", "HTTPS://A.EXAMPLE"],
)
def test_a_public_url_is_fine(url: str) -> None:
    assert guard().parse(url)


@pytest.mark.parametrize(
    ("allow", "url"),
    [("127.0.0.0/8", "http://127.0.0.1:8000/"), ("localhost:8000", "http://localhost:8000/"), ("[::1]", "http://[::1]/"),
     ("hooks.example:22", "http://hooks.example:22/")],
)  # fmt: skip
def test_what_the_operator_allows_is_fine(allow: str, url: str) -> None:
    with pytest.raises(AddressRefused):
        guard().parse(url)
    assert guard(allow).parse(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8001/", "http://[::ffff:7f00:1]:8000/"])
def test_what_the_operator_allows_is_not_more(url: str) -> None:
    with pytest.raises(AddressRefused):
        guard("127.0.0.1:8000").parse(url)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["::ffff:127.0.0.1"], ["fe80::1%eth0"]])
async def test_a_name_that_leads_inside_is_refused_and_nothing_is_sent(
    receiver: Receiver, addresses: list[str]
) -> None:
    url = receiver.url()
    with pytest.raises(AddressRefused):
        await guard(resolve=Names(addresses)).post(url.replace(HOST, "hooks.example"), body=b"{}", headers={})
    assert receiver.arrived(url) == []


async def test_a_name_server_that_changes_its_answer_changes_nothing(receiver: Receiver) -> None:
    inside = Receiver("127.0.0.1", receiver.port)
    url, forbidden = receiver.url(), inside
    names = Names([HOST], ["127.0.0.1"])
    answer = await guard(HOST, resolve=names).post(url.replace(HOST, "hooks.example"), body=b"{}", headers={})
    assert answer.status == 204
    assert names.asked == ["hooks.example"]
    [request] = receiver.arrived(url)
    assert request.headers["host"] == f"hooks.example:{receiver.port}"
    assert forbidden.arrived(url) == []
    with pytest.raises(AddressRefused):  # and the next call asks again, and sees the change
        await guard(HOST, resolve=names).post(url.replace(HOST, "hooks.example"), body=b"{}", headers={})
    assert forbidden.arrived(url) == []
    inside.stop()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(receiver: Receiver, status: int) -> None:
    trap = receiver.url()
    for location in (trap, "http://169.254.169.254/latest/meta-data/"):
        url = receiver.url(says(status, location=location))
        answer = await guard(HOST).post(url, body=b"{}", headers={})
        assert answer.status == status
    assert receiver.arrived(trap) == []


async def test_neither_the_proxies_of_the_environment_nor_cookies_are_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port('127.0.0.1')}")
    url = receiver.url(says(200, b"fine", **{"Set-Cookie": "a=b"}))
    client = guard(HOST)
    for _ in range(2):
        assert (await client.post(url, body=b"{}", headers={"x-own": "1"})).text == "fine"
    for request in receiver.arrived(url):
        assert "cookie" not in request.headers
        assert (request.headers["x-own"], request.headers["accept-encoding"]) == ("1", "identity")


async def test_of_a_huge_answer_the_beginning_is_read(receiver: Receiver) -> None:
    endless = never_ends(b"x" * 65_536)
    began = time.monotonic()
    answer = await guard(HOST).post(receiver.url(endless), body=b"{}", headers={})
    assert (answer.status, answer.text) == (200, "x" * SHOWN)
    assert time.monotonic() - began < 2
    assert endless.sent < 16_000_000  # type: ignore[attr-defined]  # what sockets hold, and no more


async def test_an_answer_that_trickles_counts_by_its_status(receiver: Receiver) -> None:
    client = guard(HOST, timeout=10.0)
    began = time.monotonic()
    answer = await client.post(receiver.url(never_ends(b"a", every=0.2)), body=b"{}", headers={})
    assert answer.status == 200
    assert set(answer.text) == {"a"}
    assert time.monotonic() - began < 6


async def test_one_that_does_not_answer_is_left_in_time(receiver: Receiver) -> None:
    done = threading.Event()
    began = time.monotonic()
    with pytest.raises(OutboundFailed, match="within") as failed:
        await guard(HOST, timeout=0.5).post(receiver.url(waits(done)), body=b"{}", headers={})
    done.set()
    assert failed.value.kind == "timeout"
    assert time.monotonic() - began < 3


async def test_a_name_server_that_does_not_answer_is_left_in_time() -> None:
    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(30)
        return [PUBLIC]

    with pytest.raises(OutboundFailed) as failed:
        await guard(resolve=silent, timeout=0.3).post("http://hooks.example/", body=b"", headers={})
    assert failed.value.kind == "timeout"
    began = time.monotonic()
    await guard(resolve=silent).look("http://hooks.example/")
    assert time.monotonic() - began < LOOK + 1


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"", "connect"), (b"SSH-2.0-x\r\n", "protocol"), (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000, "protocol"),
     (b"HTTP/1.1 999999 x\r\n\r\n", "protocol")],
)  # fmt: skip
async def test_what_is_not_http_is_a_failure(receiver: Receiver, data: bytes, kind: str) -> None:
    with pytest.raises(OutboundFailed) as failed:
        await guard(HOST).post(receiver.url(sends(data)), body=b"{}", headers={})
    assert failed.value.kind == kind


async def test_each_way_to_fail_has_its_kind(receiver: Receiver) -> None:
    for url, kind in (
        (f"http://{HOST}:{closed_port()}/", "connect"),
        (receiver.url().replace("http:", "https:"), "tls"),
    ):
        with pytest.raises(OutboundFailed) as failed:
            await guard(HOST).post(url, body=b"{}", headers={})
        assert failed.value.kind == kind
    for answer in (OSError("no such name"), []):
        with pytest.raises(OutboundFailed) as failed:
            await guard(resolve=Names(answer)).post("http://hooks.example/", body=b"{}", headers={})
        assert failed.value.kind == "dns"


async def test_a_host_behind_tls_is_asked_for_by_its_name_and_must_prove_it(tmp_path: Path) -> None:
    named: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed("hooks.example", tmp_path))
    context.sni_callback = lambda _, name, __: named.append(name)
    server = await asyncio.start_server(lambda _, writer: writer.close(), HOST, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(OutboundFailed, match="certificate") as failed:
        await guard(HOST, resolve=Names([HOST])).post(f"https://hooks.example:{port}/", body=b"{}", headers={})
    assert failed.value.kind == "tls"
    assert named == ["hooks.example"]
    server.close()


def self_signed(name: str, folder: Path) -> Path:
    """A certificate that nobody has reason to believe, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / "both.pem"
    path.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return path


async def test_the_text_of_an_answer_can_be_stored_and_shown_whatever_bytes_it_has(receiver: Receiver) -> None:
    url = receiver.url(says(500, b"a\x00b\x1b[31m\xff\xed\xa0\x80\xe2\x80\xae\ttab\nline \xc3\xa9"))
    answer = await guard(HOST).post(url, body=b"{}", headers={})
    assert answer.text.encode().decode() == answer.text
    assert not {"\x00", "\x1b", "\u202e"} & set(answer.text)
    assert answer.text.endswith("\ttab\nline é")


async def test_a_compressed_answer_is_not_unpacked(receiver: Receiver) -> None:
    url = receiver.url(says(200, b"\x1f\x8b" + b"\0" * 20, **{"Content-Encoding": "gzip"}))
    assert (await guard(HOST).post(url, body=b"{}", headers={})).status == 200


async def test_a_look_refuses_what_surely_leads_inside_and_lets_pass_what_is_not_known() -> None:
    with pytest.raises(AddressRefused, match="REDRIVE_OUTBOUND_ALLOW"):
        await guard(resolve=Names(["10.0.0.1"])).look("http://app/hook")
    await guard("app", resolve=Names(["10.0.0.1"])).look("http://app/hook")
    await guard(resolve=Names([PUBLIC])).look("https://hooks.example/")
    await guard(resolve=Names(OSError("no such name"))).look("https://hooks.example/")


async def test_a_look_counts_for_a_while() -> None:
    names = Names(["10.0.0.1"], [PUBLIC])
    client = guard(resolve=names)
    for _ in range(3):
        with pytest.raises(AddressRefused):
            await client.look("http://app/hook")
    assert names.asked == ["app"]


async def test_names_are_looked_up_by_the_system_in_threads_of_their_own() -> None:
    client = Outbound(AllowList.parse([]))
    with pytest.raises(AddressRefused):
        await client.look("http://ip6-localhost.localhost/")
    with pytest.raises(OutboundFailed) as failed:
        await client.post("http://no-such-name.invalid/", body=b"", headers={})
    assert failed.value.kind in {"dns", "timeout"}
