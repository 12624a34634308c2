"""Which licence two base models leave for a bridge."""

import pytest

from lavi_bridge import BridgeError
from lavi_bridge.publish.licences import FREE, NOT_CHANGED, Terms, decide, terms_of

PAGE = "https://huggingface.co/me/x#base-models-and-their-licences"


def bases(language: str | None, vision: str | None) -> dict[str, str | None]:
    return {"a/language": language, "a/vision": vision}


@pytest.mark.parametrize(
    ("language", "vision", "metadata"),
    [
        ("apache-2.0", "apache-2.0", {"license": "apache-2.0"}),
        ("apache-2.0", "creativeml-openrail-m", {"license": "creativeml-openrail-m"}),
        ("gpl-3.0", "mit", {"license": "gpl-3.0"}),
        ("apache-2.0", "openrail++", {"license": "openrail++"}),
        (
            "llama2",
            "openrail++",
            {"license": "other", "license_name": "llama2-and-openrail", "license_link": PAGE},
        ),
    ],
)
def test_the_stricter_licence_is_named_or_both(
    language: str, vision: str, metadata: dict[str, str]
) -> None:
    assert decide(bases(language, vision), None, sure=False).metadata(PAGE) == metadata


@pytest.mark.parametrize(
    ("language", "vision", "problem"),
    [
        (None, "mit", "the licence of 'a/language' is not known"),
        ("mit", "other", "the licence of 'a/vision' is not known"),
        ("mit", "sai-community", "'a/vision' is under 'sai-community', whose terms are not known"),
        ("gpl-3.0", "llama2", r"gpl-3\.0 takes no further terms, and llama2 has some"),
        ("cc-by-nc-4.0", "cc-by-sa-4.0", r"cc-by-sa-4\.0 takes no further terms, and cc-by-nc-4"),
        ("mit", "cc-by-nd-4.0", "lets nobody publish changes"),
    ],
)
def test_what_a_person_has_to_read_stops_until_it_is_confirmed_or_chosen(
    language: str | None, vision: str, problem: str
) -> None:
    stated = bases(language, vision)
    with pytest.raises(BridgeError, match=problem) as caught:
        decide(stated, None, sure=False)
    assert "\n" not in str(caught.value)
    assert decide(stated, None, sure=True).problem
    assert decide(stated, "cc-by-nc-4.0", sure=False).names == ("cc-by-nc-4.0",)


def test_asking_for_less_than_the_base_models_is_to_be_confirmed() -> None:
    stated = bases("apache-2.0", "creativeml-openrail-m")
    with pytest.raises(BridgeError, match="ask for creativeml-openrail-m, not mit"):
        decide(stated, "mit", sure=False)
    assert decide(stated, "mit", sure=True) == Terms(("mit",))
    assert decide(bases("apache-2.0", "mit"), "cc-by-nc-4.0", sure=False).names == ("cc-by-nc-4.0",)


def test_any_licence_may_be_called_other() -> None:
    chosen = decide(bases("apache-2.0", "sai-community"), "other", sure=False)
    assert chosen.metadata(PAGE)["license_name"] == "sai-community"


def test_a_licence_is_named_as_the_hub_does() -> None:
    with pytest.raises(BridgeError, match=r"'apache2' is no licence .*did you mean 'apache-2\.0'"):
        decide(bases("mit", "mit"), "apache2", sure=True)


def test_no_order_of_the_models_changes_what_is_asked() -> None:
    every = [*sorted(FREE)[:3], "llama2", "gpl-3.0", *NOT_CHANGED, "other", None]
    for one in every:
        for other in every:
            there, back = terms_of(bases(one, other)), terms_of(bases(other, one))
            assert set(there.names) == set(back.names) or {one, other} <= FREE
            assert bool(there.problem) == bool(back.problem)
