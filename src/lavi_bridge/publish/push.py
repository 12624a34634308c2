"""Publish a bridge: look at it and at the Hub, make what is missing, send all of it at once."""

from __future__ import annotations

from dataclasses import dataclass

from lavi_bridge.publish.contents import check_new, contents_of, sizes, write_contents
from lavi_bridge.publish.hub import Sent, check_model, look, send, sign_in
from lavi_bridge.publish.licences import decide
from lavi_bridge.publish.options import PushConfig
from lavi_bridge.publish.source import source_of


@dataclass(frozen=True)
class Pushed:
    """What was sent, or would be."""

    files: dict[str, int]
    """Bytes by path in the repository."""
    sent: Sent | None
    """None for a dry run."""


def push(config: PushConfig, *, token: str | None = None, endpoint: str | None = None) -> Pushed:
    """Publish a bridge as its settings say.

    Args:
        token: of the Hub; that of `hf auth login` or HF_TOKEN by default.
        endpoint: address of the Hub; that of HF_ENDPOINT by default.

    Raises:
        BridgeError: the bridge, its licence, the evaluation, the token or the name does not do, or
            the Hub cannot be reached. Nothing is half there.
    """
    from huggingface_hub import HfApi

    source = source_of(config)
    terms = decide(source.licences, config.licence, sure=config.yes)
    if config.dry_run is not None:
        check_new(config.dry_run)
        contents = contents_of(config, source, terms)
        write_contents(contents, config.dry_run)
        return Pushed(sizes(contents), None)
    api = HfApi(endpoint=endpoint, token=token, library_name="lavi-bridge")
    sign_in(api, config.name)  # before pictures are drawn for nothing
    there = look(api, config.name, private=config.private)
    for option, base in source.given.items():
        check_model(api, base, option)
    contents = contents_of(config, source, terms)
    message = config.message or f"Bridge {source.record['id']}"
    sent = send(api, config.name, contents, there, private=config.private, message=message)
    return Pushed(sizes(contents), sent)
