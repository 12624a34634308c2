"""`judge`: how far an image-and-text model can be trusted as a judge."""

from __future__ import annotations

import tyro

from lavi_bridge.evaluate.judges.options import JudgeConfig


def judge(args: list[str]) -> None:
    """Ask a judge about pictures whose truth is known: accuracy, calibration, by category."""
    options = tyro.cli(JudgeConfig, args=args, prog="lavi-bridge judge")
    if options.plan:
        from lavi_bridge.plan.judging import planned
        from lavi_bridge.show.tables import aligned

        print(aligned([[line.what, line.text] for line in planned(options)]))
        return
    from lavi_bridge.evaluate.judges.page import PAGE, console
    from lavi_bridge.evaluate.judges.run import judge
    from lavi_bridge.running.device import processes

    found = judge(options)
    if processes()[0] == 0:
        print(f"{console(found)}\n\nWith diagrams and mistakes: '{options.out}/{PAGE}'")
