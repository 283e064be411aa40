"""Which addresses are public, and what an allow-list means."""

from ipaddress import ip_address

import pytest

from apps.core.addresses import AllowList, is_name, is_public

INSIDE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "2606:4700:4700::1111%eth0",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::200e",
]


@pytest.mark.parametrize("address", INSIDE)
def test_it_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_it_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "host", ["a", "hooks.example.com", "hooks.example.com.", "my_app", "1.example", "xn--bcher-kva.de"]
)
def test_it_is_a_name(host: str) -> None:
    assert is_name(host)


@pytest.mark.parametrize(
    "host",
    ["", ".", "a..b", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "a.0x", "1.2.3.4.5", "a b", "a%2eb",
     "a,b", "é.example", "a/b", "127.0.0.1.", "a" * 254],
)  # fmt: skip
def test_it_is_none(host: str) -> None:
    assert not is_name(host)


def test_an_allow_list_holds_names_addresses_and_networks_each_with_one_port_or_all() -> None:
    allow = AllowList.parse(["App", "hooks:8000", "10.0.0.0/8", "127.0.0.1:9000", "[::1]:9000", "fd00::/8"])
    assert allow.has_name("app", 1)
    assert allow.has_name("APP.", 2)
    assert allow.has_name("hooks", 8000)
    assert not allow.has_name("hooks", 8001)
    assert not allow.has_name("my.app", 1)
    assert allow.has_address(ip_address("10.1.2.3"), 5)
    assert allow.has_address(ip_address("127.0.0.1"), 9000)
    assert not allow.has_address(ip_address("127.0.0.1"), 9001)
    assert allow.has_address(ip_address("::1"), 9000)
    assert not allow.has_address(ip_address("::1"), 80)
    assert allow.has_address(ip_address("fd12::1"), 80)
    assert not allow.has_address(ip_address("11.0.0.1"), 80)


@pytest.mark.parametrize(
    "entry", ["", "http://a", "a/b", "u@a", "a:", "a:x", "a:99999", "10.0.0.0/99", "*", "*.example.com", "127.1", "a b"]
)
def test_an_allow_list_refuses(entry: str) -> None:
    with pytest.raises(ValueError):
        AllowList.parse([entry])
