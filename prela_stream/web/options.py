"""Settings of the web page. Imports nothing heavy."""

import msgspec

from prela_stream.addresses import is_loopback, parse_address


class WebOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The web page of `web` and `dev`. It needs the extra `web`."""

    listen: str = "127.0.0.1:8787"
    """HOST:PORT of the page. `dev` takes the next free port if this one is in use; `off`: it serves no page."""
    token: str = ""
    """What a browser must enter before it sees a trace. Required if `listen` is no loopback address."""
    hosts: tuple[str, ...] = ()
    """Further names that the Host header may have. Addresses, `localhost` and the host of `listen` are accepted."""
    services: tuple[str, ...] = ()
    """HOST:PORT of each service (`http.listen`) whose state and metrics the pipeline page shows. `http.token` is sent to them."""

    @property
    def is_off(self) -> bool:
        """Whether no page is served."""
        return self.listen in ("", "off")

    def __repr__(self) -> str:
        token = "<hidden>" if self.token else repr("")
        return f"WebOptions(listen={self.listen!r}, token={token}, hosts={self.hosts!r}, services={self.services!r})"

    def problems(self) -> list[tuple[str, str]]:
        """The mistakes that the type of a field does not show, each with the name of its field."""
        if self.is_off:
            return []
        for one in self.services:
            if parse_address(one) is None:
                return [("services", f"expected HOST:PORT, for example 127.0.0.1:9464, got {one!r}")]
        found = parse_address(self.listen)
        if found is None:
            return [("listen", f"expected HOST:PORT, for example 127.0.0.1:8787, got {self.listen!r}")]
        if not self.token and not is_loopback(found[0]):
            problem = (
                f"other machines can reach {self.listen}, and no token is set. Set web.token (PRELA_WEB_TOKEN), or listen "
                "on 127.0.0.1"
            )
            return [("listen", problem)]
        return []
