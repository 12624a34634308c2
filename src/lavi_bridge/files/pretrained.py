"""Loading a checkpoint through its library: quietly, whole, or with one line on what is wrong."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, TypeVar

from lavi_bridge.errors import BridgeError, in_a_line
from lavi_bridge.files.locate import Place
from lavi_bridge.files.weights import VARIANTS

T = TypeVar("T")


def load_pretrained(
    kind: Any,
    place: Place,
    what: str,
    *,
    unused: str = "",
    lacks: str | None = None,
    trust_remote_code: bool | None = None,
    **options: Any,
) -> Any:
    """Load a model with all of its weights.

    Args:
        kind: a class of transformers or diffusers, for its `from_pretrained`.
        what: names the model in an error: "language model 'google-t5/t5-large'".
        unused: missing weights with this in their names are not needed.
        lacks: begins the error about missing weights, unless it is the usual one.
        trust_remote_code: run code that comes with the model; None for classes without such code.
        options: further arguments of `from_pretrained`.

    Raises:
        BridgeError: it cannot be loaded, or lacks weights.
    """
    trust = {} if trust_remote_code is None else {"trust_remote_code": trust_remote_code}
    with loading(what, trust_remote_code=trust_remote_code), quiet():
        model, report = of_any_variant(
            kind.from_pretrained, **place.pretrained(), **trust, **options, output_loading_info=True
        )
    if missing := sorted(k for k in report["missing_keys"] if not (unused and unused in k)):
        raise BridgeError(
            f"{lacks or f'{what} lacks'} {len(missing)} of the model's weights, such as "
            f"'{missing[0]}'"
        )
    return model


@contextmanager
def loading(what: str, *, trust_remote_code: bool | None = None) -> Iterator[None]:
    """Make one line of whatever a library raises while it loads something.

    Args:
        trust_remote_code: whether code that comes with the model may run; None where no option of
            ours says so.
    """
    try:
        yield
    except Exception as error:  # the libraries raise many types; all mean this
        reason = in_a_line(error)
        if "trust_remote_code" in str(error) and trust_remote_code is False:
            reason = (
                "it comes with code of its own, which runs only where you say so: read it, then "
                "give --trust-remote-code (in Python trust_remote_code=True)"
            )
        raise BridgeError(f"cannot load {what}: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the libraries' reports on weights that a checkpoint has and we leave, such as a head.

    And diffusers' own call of an argument that the Hub's library has deprecated.
    """
    loggers = []
    for library in ("transformers", "diffusers"):
        if library in sys.modules:  # imported where it is used
            loggers.append(import_module(f"{library}.utils.logging"))
    before = [logging.get_verbosity() for logging in loggers]
    for logging in loggers:
        logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument")
            yield
    finally:
        for logging, verbosity in zip(loggers, before, strict=True):
            logging.set_verbosity(verbosity)


def of_any_variant(load: Callable[..., T], **options: Any) -> T:
    """Call a library's `from_pretrained`; where the plain files are missing, for a variant's."""
    try:
        return load(**options)
    except OSError as error:
        missing = "file named" in str(error) and "required according" not in str(error)
        if not missing:  # damaged, say: another precision is not what was asked for
            raise
        for variant in VARIANTS:
            with suppress(OSError):
                return load(**options, variant=variant)
        raise
