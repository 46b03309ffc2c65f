"""The SROS 2 policy: every node and topic is in it, and nobody but the monitor may command the robot."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from safe_support_ql import bringup, config
from safe_support_ql.nodes import topics

ROOT = ElementTree.parse(config.shipped("sros2_policy.xml")).getroot()
NAMES = {value for name, value in vars(topics).items() if name.isupper() and isinstance(value, str)}


def allowed(how: str, kind: str = "topic") -> dict[str, set[str]]:
    """By node: the topics that it may 'publish' or 'subscribe', or the services that it may 'reply' or 'request'."""
    found: dict[str, set[str]] = {}
    for profile in ROOT.iter("profile"):
        lists = [one for one in profile if one.get(how) == "ALLOW"]
        found[profile.attrib["node"]] = {str(item.text) for one in lists for item in one.iter(kind)}
    return found


@pytest.mark.parametrize(
    ("topic", "who"),
    [
        ("cmd_vel", {"safety_monitor"}),
        ("decision", {"safety_monitor"}),
        ("candidates", {"safety_monitor"}),
        ("recorder/heartbeat", {"recorder"}),
        ("e_stop", {"operator"}),
        ("dead_man", {"operator"}),
        ("hold", {"task"}),
        ("odom", {"robot"}),
        ("scan", {"robot"}),
        ("request", {"behavior_policy", "teleoperation", "inference"}),
    ],
)
def test_who_may_say_what_the_robot_obeys(topic: str, who: set[str]) -> None:
    assert {node for node, names in allowed("publish").items() if topic in names} == who


def test_every_node_of_a_robot_has_an_enclave_of_its_own_and_every_topic_is_said_and_heard() -> None:
    enclaves = {one.attrib["path"]: one.find("profiles/profile") for one in ROOT.iter("enclave")}
    for node in {spec.name for spec in bringup.NODES} - {"simulator"} | {"conductor"}:
        profile = enclaves[bringup.enclave(node)]
        assert profile is not None and profile.attrib["node"] == node
    said, heard = (set().union(*allowed(how).values()) for how in ("publish", "subscribe"))
    of_simulators = {topics.EPISODE, topics.TELEOP}  # nobody says on a robot that it stands somewhere else
    assert not NAMES - of_simulators - said, "no node may say this"
    assert not said - heard - {"rosout", "~/transition_event", "episode_ack", "shadow"}, "nobody may hear this"


def test_only_the_operator_resets_and_only_he_and_the_conductor_change_parameters() -> None:
    asked = allowed("request", "service")
    assert {node for node, names in asked.items() if "safety_monitor/reset" in names} == {"operator"}
    assert {node for node, names in asked.items() if "safety_monitor/set_parameters" in names} == {
        "operator", "conductor",
    }  # fmt: skip
