"""Listeners with authentication: TLS with a test certificate authority, SASL with users, and an authorizer.

Every cluster keeps its plain listener: brokers talk to each other on it. The listeners of this module come beside it, one a
security protocol, on separate ports. With an authorizer, a client without a name (by the plain listener, or by TLS without
a certificate) is the operator and may do everything; users and holders of a certificate may do what they were allowed.
"""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.kafka.errors import KafkaMissingError

CLASSES = "org.apache.kafka.common.security"
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
DAYS = "30"


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A listener beside the plain one.

    Args:
        name: Its name, upper case.
        protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        properties: Its own settings, without the prefix `listener.name.…`.
    """

    name: str
    protocol: str
    properties: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, str]:
        """Its settings as broker properties."""
        return {f"listener.name.{self.name.lower()}.{key}": value for key, value in self.properties.items()}


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """PEM files in one folder, good for `localhost` and 127.0.0.1, valid for a month.

    Args:
        folder: Where they are.
    """

    folder: Path

    @property
    def authority(self) -> Path:
        """The authority's certificate: what clients trust."""
        return self.folder / "authority.pem"

    @property
    def server(self) -> Path:
        """The brokers' key and certificate."""
        return self.folder / "server.pem"

    @property
    def client(self) -> Path:
        """A client's key and certificate, for `ssl.SSLContext.load_cert_chain`; its principal is `User:CN=client`."""
        return self.folder / "client.pem"


@dataclass(frozen=True, kw_only=True)
class Security:
    """What a cluster requires of its clients on further listeners: SSL, SASL_PLAINTEXT and SASL_SSL, as far as they make sense.

    Args:
        tls: Open SSL, and with mechanisms SASL_SSL.
        client_certificates: TLS listeners refuse who shows no certificate of the same authority.
        mechanisms: SASL mechanisms: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER (takes unsigned tokens).
        users: Names and passwords, for PLAIN and SCRAM.
        authorizer: Refuse users and holders of a certificate what no ACL allows (`KafkaCluster.allow`).
    """

    tls: bool = False
    client_certificates: bool = False
    mechanisms: Sequence[str] = ()
    users: Mapping[str, str] = field(default_factory=dict)
    authorizer: bool = False

    def listeners(self, certificates: Certificates) -> list[Listener]:
        """The listeners; their certificates have to be there when a broker starts."""
        tls, sasl = self._tls(certificates) if self.tls else {}, self._sasl() if self.mechanisms else {}
        found = []
        if tls:
            found.append(Listener(name="SSL", protocol="SSL", properties=tls))
        if sasl:
            found.append(Listener(name="SASL_PLAINTEXT", protocol="SASL_PLAINTEXT", properties=sasl))
        if tls and sasl:
            found.append(Listener(name="SASL_SSL", protocol="SASL_SSL", properties={**tls, **sasl}))
        return found

    def properties(self) -> dict[str, str]:
        """Broker properties of the authorizer."""
        if not self.authorizer:
            return {}
        return {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": "User:ANONYMOUS",  # brokers, controllers and the operator
        }

    def format_arguments(self) -> list[str]:
        """Arguments of the storage tool that add the SCRAM users."""
        wanted = [mechanism for mechanism in self.mechanisms if mechanism in SCRAM]
        pairs = [(m, name, word) for m in wanted for name, word in self.users.items()]
        return [part for m, name, word in pairs for part in ("--add-scram", f"{m}=[name={name},password={word}]")]

    def _tls(self, certificates: Certificates) -> dict[str, str]:
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(certificates.server),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(certificates.authority),
            "ssl.client.auth": "required" if self.client_certificates else "none",
        }

    def _sasl(self) -> dict[str, str]:
        users = "".join(f' user_{name}="{password}"' for name, password in self.users.items())
        modules = {
            "PLAIN": f"{CLASSES}.plain.PlainLoginModule required{users};",
            "SCRAM-SHA-256": f"{CLASSES}.scram.ScramLoginModule required;",
            "SCRAM-SHA-512": f"{CLASSES}.scram.ScramLoginModule required;",
            "OAUTHBEARER": f'{CLASSES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
        }
        unknown = set(self.mechanisms) - set(modules)
        if unknown:
            raise ValueError(
                f"expected SASL mechanisms out of {sorted(modules)}; came {sorted(unknown)}: name one of those"
            )
        found = {"sasl.enabled.mechanisms": ",".join(self.mechanisms)}
        for mechanism in self.mechanisms:
            found[f"{mechanism.lower()}.sasl.jaas.config"] = modules[mechanism]
        if "OAUTHBEARER" in self.mechanisms:
            handler = f"{CLASSES}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
            found["oauthbearer.sasl.server.callback.handler.class"] = handler
        return found


def unsigned_token(subject: str, seconds: float = 3600.0) -> str:
    """An unsigned bearer token for OAUTHBEARER with this subject; it expires after so many seconds."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + seconds})
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + "."


def make_certificates(folder: Path) -> Certificates:
    """An authority and what it signed for brokers and for one client; those of an earlier life are kept.

    Raises:
        KafkaMissingError: There is no `openssl` command, or it failed.
    """
    made = Certificates(folder=folder)
    if made.client.exists():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    authority = ["-keyout", "authority.key", "-out", made.authority.name, "-subj", "/CN=prela test authority"]
    _openssl(
        folder, "req", "-x509", *authority, "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-days", DAYS, new=True
    )
    for name, subject in ((made.server.stem, "/CN=localhost"), (made.client.stem, "/CN=client")):
        _openssl(folder, "req", "-new", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject, new=True)
        (folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
        signed_by = [
            "-CA",
            made.authority.name,
            "-CAkey",
            "authority.key",
            "-CAcreateserial",
            "-extfile",
            f"{name}.ext",
        ]
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", "-days", DAYS, *signed_by)
        (folder / f"{name}.pem").touch(mode=0o600)
        (folder / f"{name}.pem").write_bytes(
            b"".join((folder / f"{name}.{end}").read_bytes() for end in ("key", "crt"))
        )
    return made


def _openssl(folder: Path, *arguments: str, new: bool = False) -> None:
    path = shutil.which("openssl")
    if path is None:
        raise KafkaMissingError("TLS listeners need certificates made by `openssl`; none is on PATH: install openssl")
    command = [path, *arguments, *(("-newkey", "rsa:2048", "-nodes") if new else ())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KafkaMissingError(
            f"expected {command} to make certificates; it ended with {done.returncode}\n{done.stderr}"
        )
