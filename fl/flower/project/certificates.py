"""Make what a deployment is secured with: certificates for TLS, and a key for each device.

``python certificates.py --devices 2 --host 127.0.0.1`` writes, below ``certificates/``:

- ``ca.crt``: goes to every device and to whoever starts runs; they believe what it signed;
- ``server.pem``, ``server.key``: stay on the server;
- ``device-0.key``, ``device-0.pub`` …: a device has its key, the server is told the other part.

What is there is kept, so that devices can be added later; name other hosts in another folder.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAYS = 365
"""That certificates are valid."""

Serialized = serialization.PrivateFormat


def main() -> None:
    """Read the arguments and write what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--devices", type=int, default=2, help="how many get a key")
    parser.add_argument(
        "--host", action="append", help="name or address of the server; may be given several times"
    )
    parser.add_argument("--out", type=Path, default=Path("certificates"), help="folder")
    given = parser.parse_args()
    given.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (given.out / "server.pem").exists():
        write_certificates(given.out, given.host or ["127.0.0.1", "localhost"])
    for device in range(given.devices):
        if not (given.out / f"device-{device}.key").exists():
            write_device(given.out, f"device-{device}")
    print(f"Wrote certificates and {given.devices} keys of devices to {given.out}.")


def write_certificates(folder: Path, hosts: list[str]) -> None:
    """Write those of an authority of its own, which signs that of the server and no more."""
    authority, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own authority of this project")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    own_key = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    root = (
        _begun(issuer, issuer, authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(own_key, critical=False)
        .sign(authority, hashes.SHA384())
    )
    signed = (
        _begun(subject, issuer, server.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_key), critical=False
        )
        .sign(authority, hashes.SHA384())
    )
    # The authority's key is not kept: nobody can sign with it later.
    (folder / "ca.crt").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    _write_secret(folder / "server.key", server, Serialized.PKCS8)


def write_device(folder: Path, name: str) -> None:
    """Write the two parts of the key of a device."""
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    (folder / f"{name}.pub").write_bytes(public)
    _write_secret(folder / f"{name}.key", key, Serialized.OpenSSH)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of devices differ
        .not_valid_after(now + timedelta(days=DAYS))
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_secret(path: Path, key: ec.EllipticCurvePrivateKey, kind: Serialized) -> None:
    """Write a key that only its owner may read."""
    content = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


if __name__ == "__main__":
    main()
