"""`push`: a bridge for others."""

from __future__ import annotations

import tyro

from lavi_bridge.publish.options import PushConfig


def push(args: list[str]) -> None:
    """Publish a bridge on the Hugging Face Hub, with its card, pictures and scores."""
    options = tyro.cli(PushConfig, args=args, prog="lavi-bridge push")
    from lavi_bridge.publish.push import push
    from lavi_bridge.publish.source import size_of
    from lavi_bridge.show.tables import aligned

    done = push(options)
    print(aligned([(name, size_of(size)) for name, size in done.files.items()], "lr"))
    print(f"\n{len(done.files)} files, {size_of(sum(done.files.values()))}")
    if done.sent is None:
        print(f"nothing was sent: look into '{options.dry_run}', README.md first")
    elif done.sent.new:
        print(f"{done.sent.url} is at commit {done.sent.commit[:12]}")
    else:
        print(f"{done.sent.url} has all of this already; there is no new commit")
