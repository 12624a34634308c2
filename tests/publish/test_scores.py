"""Scores of an evaluation, as a card tells them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge.drawing import read_record
from lavi_bridge.config import Sampling
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.evaluate.run import evaluate
from lavi_bridge.publish.options import PushConfig
from lavi_bridge.publish.push import push


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bridge, and what it and the image model alone were found to draw."""
    root = tmp_path_factory.mktemp("evaluated")
    bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu")
    bridge.save(root / "bridge")
    settings = EvaluateConfig(
        [
            f"weak={root / 'bridge'},language-scale=0.5",
            f"bridge={root / 'bridge'}",
            "own=zoo:tiny-sd",
        ],
        ["shapes"],
        out=root / "evaluation",
        limit=6,
        images=1,
        sampling=Sampling(steps=2, batch_size=6),
        device="cpu",
    )
    evaluate(settings)
    return root


def card_of(root: Path, out: Path, **settings: Any) -> ModelCard:
    """The card of a dry run."""
    given: dict[str, Any] = {"evaluation": root / "evaluation", "dry_run": out} | settings
    push(PushConfig(str(root / "bridge"), "me/x", **given))
    return ModelCard.load(out / "README.md")


def test_scores_are_told_with_their_intervals_and_read_back(
    evaluated: Path, tmp_path: Path
) -> None:
    report = json.loads((evaluated / "evaluation" / "report.json").read_text())
    (suite,) = report["suites"]
    found = next(iter(suite["estimates"]["shapes"].values()))
    own, alone = found["bridge"], found["own"]
    card = card_of(evaluated, tmp_path / "look")
    results = {result.metric_type: result for result in card.data.eval_results}
    result = results["shapes"]
    assert result.metric_value == own["value"]
    interval = f"95 % interval {own['low']:#.3g} to {own['high']:#.3g}"
    assert result.metric_name.endswith(f"({interval})")
    assert (result.task_type, result.dataset_type) == ("text-to-image", "shapes")
    assert result.dataset_args == {"prompts": 6, "list": suite["prompt_hash"]}
    shown = (
        f"**{own['value']:#.3g} ({own['low']:#.3g} to {own['high']:#.3g})** | {alone['value']:#.3g}"
    )
    assert shown in card.text
    assert "drawn with 2 steps" in card.text
    again = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict()


def test_distances_are_told_with_theirs(evaluated: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated / "evaluation", tmp_path / "evaluation")
    path = tmp_path / "evaluation" / "report.json"
    report = json.loads(path.read_text())
    (suite,) = report["suites"]
    suite["distances"] = {"bridge": {"fid": 20.5}, "own": {"fid": 19.0}, "weak": {"fid": None}}
    suite["intervals"] = {"bridge": {"fid": [19.25, 21.75]}}
    report["metrics"]["fid"] = {"title": "FID", "higher": False}
    path.write_text(json.dumps(report))
    text = card_of(evaluated, tmp_path / "look", evaluation=path.parent).text
    assert "**20.5 (19.2 to 21.8)** | 19.0 |" in text
    del suite["intervals"]  # as evaluations before there were any
    path.write_text(json.dumps(report))
    text = card_of(evaluated, tmp_path / "again", evaluation=path.parent).text
    assert "**20.5** | 19.0 |" in text


def test_pictures_of_the_evaluation_serve_as_samples(evaluated: Path, tmp_path: Path) -> None:
    card = card_of(evaluated, tmp_path / "look", samples=3)
    record = read_record(tmp_path / "look" / "samples" / "02.png")
    assert record is not None
    assert record["bridge"] == Bridge.load(evaluated / "bridge").id
    assert record.get("language_scale", 1) == 1
    assert [each["text"] for each in card.data.widget][2] == record["prompt"]


def test_results_go_to_a_data_set_that_the_user_names(evaluated: Path, tmp_path: Path) -> None:
    card_of(evaluated, tmp_path / "without")
    assert not (tmp_path / "without" / ".eval_results").exists()
    card_of(evaluated, tmp_path / "look", benchmark="lab/shapes")
    text = (tmp_path / "look" / ".eval_results" / "scores.yaml").read_text()
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert {entry.dataset_id for entry in entries} == {"lab/shapes"}
    assert "shapes-shapes" in [entry.task_id for entry in entries]
    assert all("95 % interval" in (entry.notes or "") for entry in entries)


def test_an_evaluation_of_another_bridge_is_told(evaluated: Path, tmp_path: Path) -> None:
    other = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=3, device="cpu")
    other.save(tmp_path / "bridge")
    shutil.copytree(evaluated / "evaluation", tmp_path / "evaluation")
    with pytest.raises(BridgeError, match=f"is an evaluation of others than bridge {other.id}: '"):
        card_of(tmp_path, tmp_path / "look")


def test_a_folder_that_is_no_evaluation_is_told(evaluated: Path, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"is no evaluation: it has no report\.json"):
        card_of(evaluated, tmp_path / "look", evaluation=tmp_path)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(BridgeError, match=r"report\.json is damaged or of another version"):
        card_of(evaluated, tmp_path / "look", evaluation=tmp_path)
    with pytest.raises(BridgeError, match="--benchmark says what the scores"):
        PushConfig("a", "me/x", benchmark="lab/shapes")
