"""Settings: flags over file over recipe over defaults, and errors that name the key."""

from pathlib import Path
from typing import Any

import pytest

from lavi_bridge import RECIPES, BridgeError
from lavi_bridge.cli.draw import Generate
from lavi_bridge.cli.groups import field_docs
from lavi_bridge.cli.listing import listing
from lavi_bridge.cli.page import Page
from lavi_bridge.cli.train import DataCheck, train_config
from lavi_bridge.cli.zoo import Demo, ZooBuild
from lavi_bridge.data.sources.opening import open_source
from lavi_bridge.evaluate.entries import contestants_of
from lavi_bridge.evaluate.judges.options import JudgeConfig
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.files.atomic import at_home
from lavi_bridge.files.locate import locate
from lavi_bridge.prompts.options import ExpandConfig
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.publish.options import PushConfig
from lavi_bridge.recipes import DIFFERENCES, METRICS, PAPER
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.train.options import GROUPS, CacheConfig, TrainConfig

PAIR = ["--language", "a", "--vision", "b", "--data", "d", "--out", "o"]


def yaml(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path: Path) -> None:
    path = yaml(tmp_path, "recipe: paper-t5-large-pixart\ndata: d\nout: o\nrank: 8\nsteps: 7\n")
    config = train_config([path, "--steps", "9"])
    assert (config.steps, config.rank) == (9, 8)
    assert config.lr_vision == 2e-5
    assert config.language == "google-t5/t5-large"
    assert config.out == Path("o")


@pytest.mark.parametrize(
    "flags", [["--recipe", "paper-t5-large-pixart"], ["--recipe=paper-t5-large-pixart"]]
)
def test_a_recipe_may_be_named_by_a_flag_in_either_form(flags: list[str]) -> None:
    config = train_config([*PAIR, *flags])
    assert (config.lr_adapter, config.caption_dropout) == (2e-5, 0.0)


def test_a_bad_flag_is_the_same_one_line_as_in_a_file() -> None:
    with pytest.raises(BridgeError, match="'rank' must be at least 0, not -1"):
        train_config([*PAIR, "--rank", "-1"])


@pytest.mark.parametrize(
    ("told", "meant"), [("20M", 20_000_000), ("4.1M", 4_100_000), ("300", 300)]
)
def test_the_size_of_an_adapter_may_be_told_in_thousands_and_millions(
    told: str, meant: int, tmp_path: Path
) -> None:
    assert train_config([*PAIR, "--adapter-parameters", told]).adapter_parameters == meant
    path = yaml(tmp_path, f"adapter_parameters: {told}\n")
    assert train_config([path, *PAIR]).adapter_parameters == meant
    path = yaml(tmp_path, "adapter_parameters: big\n")
    with pytest.raises(BridgeError, match=r"'adapter_parameters': .*500k or 20M, not 'big'"):
        train_config([path, *PAIR])


def test_yaml_reads_2e_5_as_text_and_we_as_a_number(tmp_path: Path) -> None:
    path = yaml(tmp_path, "lr_adapter: 2e-5\nsample_prompts: [a, b]\n")
    config = train_config([path, *PAIR])
    assert config.lr_adapter == 2e-5
    assert config.sample_prompts == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("batchsize: 3", r"config\.yaml: unknown key 'batchsize'; did you mean 'batch_size'\?"),
        ("steps: many", r"config\.yaml: 'steps': input should be a valid integer.*got 'many'"),
        ("schedule: wavy", r"config\.yaml: 'schedule': input should be 'constant', 'cosine'"),
        ("caption_dropout: 2", r"'caption_dropout' must be at most 1, not 2"),
        ("rank: -1", r"'rank' must be at least 0"),
        ("steps: 0", r"'steps' must be at least 1"),
        ("sample_steps: 0", r"'sample_steps' must be at least 1"),
        ("lr_vision: -1", r"'lr_vision' must be at least 0"),
        ("dtype: float16", "float16 underflows in training; use bfloat16 or float32"),
        ("{shard: true, layers: mix}", "'shard' hides the inner layers"),
        ("layers: [1]", "'layers': input should be a valid integer"),
        ("a: [1", r"config\.yaml:\d: not valid YAML"),
        ("just words", r"config\.yaml: expected `key: value` lines"),
        ("recipe: papper", r"unknown recipe 'papper'; known: .*did you mean 'paper'\?"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(BridgeError, match=reason) as caught:
        train_config([yaml(tmp_path, text), *PAIR])
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_missing_required_flag_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BridgeError, match="no config file"):
        train_config([str(tmp_path / "none.yaml")])
    with pytest.raises(SystemExit):
        train_config(["--language", "a"])
    assert "--vision" in capsys.readouterr().err


def test_the_flags_are_these() -> None:
    """A new or renamed flag is a decision: change this list on purpose."""
    assert " ".join(TrainConfig.__dataclass_fields__) == (
        "language vision data out recipe dry_run steps batch_size accumulate resolution buckets "
        "crop min_size fast_decode flip caption_dropout cache cache_dtype text_cache tokens "
        "adapter adapter_parameters rank language_rank language_layers layers "
        "mix_frozen_after template vision_rank dropout lr_adapter lr_language lr_vision schedule "
        "warmup weight_decay optimizer clip min_snr flow_weighting ema "
        "gradient_checkpointing quantize quantize_vision trust_remote_code compile shard "
        "warm_start warm_start_match warm_start_solve warm_start_pairs warm_start_teacher "
        "warm_start_batch lr_warm_start warm_start_report dtype device workers seed tracker "
        "log_every sample_every sample_prompts sample_steps validation validate_every save_every "
        "keep max_bad"
    )
    assert " ".join(ExpandConfig.__dataclass_fields__) == (
        "suite language out form pairs prompts limit seed temperature top_p max_new_tokens "
        "batch_size dtype device trust_remote_code show_instruction"
    )
    assert " ".join(PushConfig.__dataclass_fields__) == (
        "folder name private dry_run evaluation benchmark samples prompts sampling licence yes "
        "message language vision dtype device trust_remote_code"
    )
    assert " ".join(ReproduceConfig.__dataclass_fields__) == (
        "tables zoo full budget seeds out page prompts scale rates workers dry_run yes data "
        "batch_size suites prompt_files reference scorers models device"
    )
    assert " ".join(JudgeConfig.__dataclass_fields__) == (
        "model out metrics categories per_category seed side pictures mode plan dtype quantize "
        "device trust_remote_code"
    )
    assert " ".join(Page.__dataclass_fields__) == (
        "bridges host port memory previews waiting dtype device"
    )


def test_the_help_of_train_shows_every_setting_under_a_title(
    capsys: pytest.CaptureFixture[str],
) -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(TrainConfig.__dataclass_fields__)
    assert field_docs(TrainConfig).keys() == TrainConfig.__dataclass_fields__.keys()
    with pytest.raises(SystemExit):
        train_config(["--help"])
    shown = capsys.readouterr().out
    places = [shown.index(f"{title} options") for title in GROUPS]
    assert places == sorted(places)
    assert all(f"--{name.replace('_', '-')}" in shown for name in grouped)
    assert "LoRA rank on both models (paper: 32)" in shown


def test_every_recipe_is_a_valid_configuration() -> None:
    for recipe in RECIPES.values():
        given: dict[str, Any] = {"language": "a", "vision": "b", "data": "d", "out": Path("o")}
        config = TrainConfig(**(given | recipe.defaults()))
        assert config.rank == 32


def test_the_paper_rows_carry_rates_tokens_masks_and_all_scores() -> None:
    rows = [recipe for recipe in RECIPES.values() if recipe.scores]
    assert len(rows) == 7
    assert all(set(row.scores) == set(METRICS) for row in rows)
    llama = RECIPES["paper-llama2-sd"]
    assert (llama.tokens, llama.masked, llama.rates_published) == (77, False, True)
    assert llama.scores["colour"] == 0.4859
    pixart = RECIPES["paper-t5-large-pixart"]
    assert (pixart.tokens, pixart.masked, pixart.settings["lr_adapter"]) == (120, True, 2e-5)
    assert not RECIPES["paper-clip-sd"].rates_published


def test_the_differences_are_the_ones_between_the_two_recipes() -> None:
    ours = TrainConfig("a", "b", "d", Path("o"))
    different = {key for key, value in PAPER.items() if getattr(ours, key) != value}
    assert different == {change.key for change in DIFFERENCES}
    for change in DIFFERENCES:
        assert (PAPER[change.key], getattr(ours, change.key)) == (change.paper, change.ours)
        assert change.reason


# ---- paths that begin with ~


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and another one to stand in."""
    for name in ("home", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def test_a_tilde_is_the_home_folder_in_a_file_in_a_flag_and_in_python(
    home: Path, tmp_path: Path
) -> None:
    path = yaml(tmp_path, "out: ~/run\ncache: ~/latents\n")
    assert train_config([path, *PAIR[:-2]]).out == home / "run"
    assert train_config([path, *PAIR[:-2]]).cache == home / "latents"
    assert train_config([*PAIR[:-2], "--out=~/x y"]).out == home / "x y"
    assert train_config([*PAIR[:-2], "--out", "~"]).out == home
    ours = TrainConfig("a", "b", "d", Path("~/run"), text_cache=Path("~/t"), language_rank=0)
    assert (ours.out, ours.text_cache) == (home / "run", home / "t")


def test_a_tilde_is_the_home_folder_in_every_command(home: Path) -> None:
    there = Path("~/there")
    commands = [
        CacheConfig("a", "d", there),
        EvaluateConfig(["a"], ["shapes"], out=there),
        ExpandConfig("shapes", "a", Path("~/there.jsonl")),
        ReproduceConfig(["languages"], out=there),
        Generate("a", out=there),
        DataCheck("d", out=there),
        Demo(there),
        ZooBuild(out=there),
    ]
    for command in commands:
        out = getattr(command, "cache", None) or command.out  # type: ignore[attr-defined]
        assert out.with_suffix("") == home / "there"
    evaluation = EvaluateConfig(["a"], ["shapes"], prompts=there, reference=there, export=there)
    assert {evaluation.prompts, evaluation.reference, evaluation.export} == {home / "there"}
    published = PushConfig("a", "me/x", dry_run=there, evaluation=there, prompts=there)
    assert {published.dry_run, published.evaluation, published.prompts} == {home / "there"}
    tables = ReproduceConfig(["languages"], full=True, prompt_files=there, page=there)
    assert {tables.prompt_files, tables.page} == {home / "there"}


def test_a_tilde_is_the_home_folder_within_other_settings(home: Path) -> None:
    (home / "pictures").mkdir()
    (home / "pictures" / "a.png").touch()
    (home / "pictures" / "a.txt").write_text("a wall")
    (home / "short.txt").write_text("a cat\n")
    entry, other = contestants_of(["~/pictures", "b=~/pictures"])
    assert (entry.name, entry.kind, other.name) == ("pictures", "images", "b")
    assert entry.spec == other.spec == str(home / "pictures")
    assert [p.text for p in load_suite("~/short.txt")] == ["a cat"]
    assert len(open_source("0.5*~/pictures + 0.5*~/pictures")) == 2
    assert locate("~/pictures").root == str(home / "pictures")


def test_a_name_that_only_begins_with_a_tilde_stays_as_in_a_shell(home: Path) -> None:
    kept = [str(home / "~" / "run"), "a/~/b", "x~", "~nobody-of-this-name/run"]
    assert [str(at_home(path)) for path in kept] == kept
    with pytest.raises(BridgeError, match="no folder '~nobody-of-this-name/t5'"):
        locate("~nobody-of-this-name/t5")
    with pytest.raises(BridgeError, match="no data '~nobody-of-this-name/d'"):
        open_source("~nobody-of-this-name/d")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr_vision": float("nan")}, "'lr_vision' must be at least 0, not nan"),
        ({"language_rank": -1}, "'language_rank' must be at least 0, not -1"),
        ({"max_bad": 1.5}, "'max_bad' must be at most 1, not 1.5"),
        ({"resolution": 0}, "'resolution' must be at least 1, not 0"),
    ],
)
def test_bounds_stand_beside_their_fields(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BridgeError, match=message):
        TrainConfig("a", "b", "c", Path("out"), **given)


def test_bounds_of_a_list_are_of_all_in_it() -> None:
    with pytest.raises(BridgeError, match="'rates' must be above 0, not -1"):
        ReproduceConfig(["visions"], rates=[1.0, -1.0])


def test_the_list_shows_families_recipes_and_zoo() -> None:
    text = listing("all")
    for word in (
        "gemma3_text",
        "SanaPipeline",
        "feedforward",
        "paper-llama2-sd",
        "21.8",
        "0.4859",
        "5e-06",
        "not published",
        "zoo:tiny-llama",
        "caption_dropout",
        "t2i-compbench",
        "djghosh13/geneval@af4902f (MIT)",
        "Apache-2.0; 1.2 GB to download, 1.2 GB in memory; needs --reference",
        "quality is fid, kid",
        "near in one direction (UniDet_eval/2D_spatial_eval.py",
    ):
        assert word in text, word
