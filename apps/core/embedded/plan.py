"""Decides one run of `up` from its options and the environment, before anything is started."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from apps.core.embedded import data_folder, ports, postgres, valkey
from apps.core.embedded.catalogue import SERVICES
from apps.core.embedded.service import Run, UpError

OWN_URLS = {"postgres": "REDRIVE_DATABASE_URL", "valkey": "REDRIVE_REDIS_URL"}
"""Embedded service to the variable that replaces it."""
SCHEMES = {"postgres": ("postgresql", "postgres"), "valkey": ("redis", "rediss")}


@dataclass(frozen=True)
class Options:
    """What the person asked for on the command line."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int | None = None
    only: tuple[str, ...] = ()
    no_model: bool = False


def choose_names(options: Options, environ: Mapping[str, str]) -> frozenset[str]:
    """The processes to start. Raises UpError for an unknown name or a store that is missing."""
    for name in options.only:
        if name not in SERVICES:
            close = difflib.get_close_matches(name, SERVICES, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise UpError(f"there is no process {name!r}; there are: {', '.join(SERVICES)}.{hint}")
    names = set(options.only or SERVICES)
    if options.no_model:
        names.discard("model")
    names -= {name for name, variable in OWN_URLS.items() if environ.get(variable)}
    for name, variable in OWN_URLS.items():
        scheme = environ.get(variable, "").partition("://")[0]
        if scheme and scheme not in SCHEMES[name]:
            raise UpError(f"{variable} does not start with {SCHEMES[name][0]}://")
        if name not in names and not environ.get(variable):
            needy = sorted(each for each in names if name in SERVICES[each].after)
            if needy:
                raise UpError(f"{' and '.join(needy)} cannot do without {name}: add it to --only, or set {variable}.")
    if not names:
        raise UpError("there is nothing to start: every process asked for is replaced by the environment.")
    return frozenset(names)


def make_run(options: Options, data_dir: Path, environ: Mapping[str, str] = os.environ) -> Run:
    """The decided run. The data folder must be locked. Raises UpError, DataFolderError, PortBusy."""
    names = choose_names(options, environ)
    secrets = data_folder.load_secrets(data_dir)
    listening = sorted(name for name in names if SERVICES[name].listens)
    chosen = dict(zip(listening, ports.free_ports(len(listening)), strict=True))
    host = options.host
    if "web" in names:
        try:
            host = ports.address_of(host)
            chosen["web"] = ports.web_port(host, options.port)
        except OSError as error:
            raise UpError(f"cannot listen on --host {options.host}: {error.strerror}") from None
    database_url, redis_url = (environ.get(variable, "") for variable in OWN_URLS.values())
    if "postgres" in names:
        database_url = postgres.database_url(chosen["postgres"], secrets["postgres_password"])
    if "valkey" in names:
        redis_url = valkey.redis_url(chosen["valkey"], secrets["valkey_password"])
    return Run(
        data_dir=data_dir,
        names=names,
        ports=chosen,
        secrets=secrets,
        database_url=database_url,
        redis_url=redis_url,
        host=host,
    )
